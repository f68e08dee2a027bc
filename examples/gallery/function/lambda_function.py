"""Makes a thumbnail of a JPEG that was put into the bucket, on the volume that the bucket is.

An ordinary Lambda function: S3 event in, files under /mnt/gallery out. Next to each thumbnail it writes how long
it took to be started (as the platform measured it) and how long it ran.
"""
import json, os, time, urllib.parse

from PIL import Image

ROOT = '/mnt/gallery'
calls = 0


def lambda_handler(event, context):
    global calls
    calls += 1
    done = []
    for record in event['Records']:
        began = time.monotonic()
        key = urllib.parse.unquote_plus(record['s3']['object']['key'])
        name = os.path.basename(key)
        os.makedirs(os.path.join(ROOT, 'thumbs'), exist_ok=True)
        with Image.open(os.path.join(ROOT, key)) as picture:
            picture.thumbnail((240, 240))
            write(os.path.join(ROOT, 'thumbs', name), lambda f: picture.convert('RGB').save(f, 'JPEG'))
        told = {'request_id': context.aws_request_id, 'cold': calls == 1, 'start_ms': start_ms(context),
                'duration_ms': round((time.monotonic() - began) * 1000, 1)}
        write(os.path.join(ROOT, 'thumbs', os.path.splitext(name)[0] + '.json'), lambda f: f.write(json.dumps(told).encode()))
        done.append(name)
    print('made', done)
    return {'made': done}


def write(path, save):
    """Whole or not at all: the page may look at any moment."""
    with open(path + '.part', 'wb') as f:
        save(f)
    os.rename(path + '.part', path)


def start_ms(context):
    """From the request's arrival to the handler's first line; tandem says it in the context, others do not."""
    us = getattr(context, 'tandem_start_us', None)
    return round(us / 1000, 2) if us is not None else None
