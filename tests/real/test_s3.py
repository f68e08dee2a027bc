"""S3 through an unmodified boto3."""
import hashlib, io, json, os, urllib.error, urllib.request, uuid

import boto3, botocore.config, pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_lambda import create, refused, zipped


@pytest.fixture(scope='module')
def s3(tandem):
    return tandem.boto('s3')


@pytest.fixture
def bucket(s3):
    name = 'b-' + uuid.uuid4().hex[:10]
    s3.create_bucket(Bucket=name)
    return name


def keys(answer):
    return [o['Key'] for o in answer.get('Contents', [])]


def test_buckets(tandem, s3, bucket):
    assert bucket in [b['Name'] for b in s3.list_buckets()['Buckets']]
    s3.head_bucket(Bucket=bucket)
    assert s3.get_bucket_location(Bucket=bucket)['LocationConstraint'] is None
    assert bucket in [v['metadata']['name'] for v in tandem.get('volumes')['items']]
    refused('404', 404, s3.head_bucket, Bucket='nobodys-bucket')
    refused('NoSuchBucket', 404, s3.list_objects_v2, Bucket='nobodys-bucket')
    s3.put_object(Bucket=bucket, Key='a', Body=b'1')
    refused('BucketNotEmpty', 409, s3.delete_bucket, Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key='a')
    s3.delete_bucket(Bucket=bucket)
    refused('404', 404, s3.head_bucket, Bucket=bucket)


def test_put_get_head_delete(s3, bucket):
    body = os.urandom(3000)
    put = s3.put_object(Bucket=bucket, Key='dir/ä b+c%.bin', Body=body, ContentType='image/x', Metadata={'colour': 'blue'}, CacheControl='no-store')
    assert put['ETag'] == '"%s"' % hashlib.md5(body).hexdigest()
    got = s3.get_object(Bucket=bucket, Key='dir/ä b+c%.bin')
    assert got['Body'].read() == body and got['ContentType'] == 'image/x' and got['Metadata'] == {'colour': 'blue'} and got['CacheControl'] == 'no-store'
    head = s3.head_object(Bucket=bucket, Key='dir/ä b+c%.bin')
    assert head['ContentLength'] == 3000 and head['ETag'] == put['ETag']
    s3.delete_object(Bucket=bucket, Key='dir/ä b+c%.bin')
    refused('NoSuchKey', 404, s3.get_object, Bucket=bucket, Key='dir/ä b+c%.bin')
    s3.delete_object(Bucket=bucket, Key='dir/ä b+c%.bin')
    assert s3.list_objects_v2(Bucket=bucket)['KeyCount'] == 0


def test_empty_and_big(s3, bucket):
    s3.put_object(Bucket=bucket, Key='empty', Body=b'')
    assert s3.get_object(Bucket=bucket, Key='empty')['Body'].read() == b''
    body = os.urandom(9 << 20)
    s3.put_object(Bucket=bucket, Key='big', Body=body)
    assert s3.get_object(Bucket=bucket, Key='big')['Body'].read() == body


def test_ranges_and_conditions(s3, bucket):
    tag = s3.put_object(Bucket=bucket, Key='r', Body=b'0123456789')['ETag']
    get = lambda **kw: s3.get_object(Bucket=bucket, Key='r', **kw)
    part = get(Range='bytes=2-4')
    assert part['Body'].read() == b'234' and part['ContentRange'] == 'bytes 2-4/10' and part['ResponseMetadata']['HTTPStatusCode'] == 206
    assert get(Range='bytes=7-')['Body'].read() == b'789'
    assert get(Range='bytes=-3')['Body'].read() == b'789'
    assert get(Range='bytes=5-100')['Body'].read() == b'56789'
    refused('InvalidRange', 416, get, Range='bytes=50-')
    assert get(IfMatch=tag)['Body'].read() == b'0123456789'
    refused('PreconditionFailed', 412, get, IfMatch='"x"')
    refused('304', 304, get, IfNoneMatch=tag)
    refused('PreconditionFailed', 412, s3.put_object, Bucket=bucket, Key='r', Body=b'', IfNoneMatch='*')


def test_lists(s3, bucket):
    names = ['a', 'a-b', 'a/b', 'a/c/d', 'a0', 'b/x y', 'z']
    for n in names:
        if n != 'a':
            s3.put_object(Bucket=bucket, Key=n, Body=n.encode())
    names = sorted(n for n in names if n != 'a')
    assert keys(s3.list_objects_v2(Bucket=bucket)) == names
    assert keys(s3.list_objects(Bucket=bucket)) == names
    paged = [o['Key'] for page in s3.get_paginator('list_objects_v2').paginate(Bucket=bucket, PaginationConfig={'PageSize': 2}) for o in page['Contents']]
    assert paged == names
    paged = [o['Key'] for page in s3.get_paginator('list_objects').paginate(Bucket=bucket, PaginationConfig={'PageSize': 2}) for o in page['Contents']]
    assert paged == names
    top = s3.list_objects_v2(Bucket=bucket, Delimiter='/')
    assert keys(top) == ['a-b', 'a0', 'z'] and [p['Prefix'] for p in top['CommonPrefixes']] == ['a/', 'b/']
    sub = s3.list_objects_v2(Bucket=bucket, Delimiter='/', Prefix='a/')
    assert keys(sub) == ['a/b'] and [p['Prefix'] for p in sub['CommonPrefixes']] == ['a/c/']
    assert keys(s3.list_objects_v2(Bucket=bucket, Prefix='a')) == ['a-b', 'a/b', 'a/c/d', 'a0']
    assert keys(s3.list_objects_v2(Bucket=bucket, StartAfter='a/c')) == ['a/c/d', 'a0', 'b/x y', 'z']
    seen = []
    for page in s3.get_paginator('list_objects_v2').paginate(Bucket=bucket, Delimiter='/', PaginationConfig={'PageSize': 1}):
        seen += keys(page) + [p['Prefix'] for p in page.get('CommonPrefixes', [])]
    assert sorted(seen) == ['a-b', 'a/', 'a0', 'b/', 'z']
    gone = s3.delete_objects(Bucket=bucket, Delete={'Objects': [{'Key': n} for n in names] + [{'Key': 'nothing'}]})
    assert len(gone['Deleted']) == len(names) + 1 and not gone.get('Errors')
    assert s3.list_objects_v2(Bucket=bucket)['KeyCount'] == 0


def test_copy(s3, bucket):
    s3.put_object(Bucket=bucket, Key='from', Body=b'copied', ContentType='text/x', Metadata={'m': '1'})
    s3.copy_object(Bucket=bucket, Key='to/here', CopySource={'Bucket': bucket, 'Key': 'from'})
    got = s3.get_object(Bucket=bucket, Key='to/here')
    assert got['Body'].read() == b'copied' and got['ContentType'] == 'text/x' and got['Metadata'] == {'m': '1'}
    refused('NoSuchKey', 404, s3.copy_object, Bucket=bucket, Key='x', CopySource={'Bucket': bucket, 'Key': 'nothing'})


def test_multipart(s3, bucket):
    body = os.urandom(11 << 20)
    s3.upload_fileobj(io.BytesIO(body), bucket, 'multi', Config=boto3.s3.transfer.TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
    head = s3.head_object(Bucket=bucket, Key='multi')
    parts = [hashlib.md5(body[i:i + (5 << 20)]).digest() for i in range(0, len(body), 5 << 20)]
    assert head['ETag'] == '"%s-3"' % hashlib.md5(b''.join(parts)).hexdigest()
    assert s3.get_object(Bucket=bucket, Key='multi')['Body'].read() == body
    up = s3.create_multipart_upload(Bucket=bucket, Key='other')['UploadId']
    part = s3.upload_part(Bucket=bucket, Key='other', UploadId=up, PartNumber=1, Body=b'part')
    assert [p['PartNumber'] for p in s3.list_parts(Bucket=bucket, Key='other', UploadId=up)['Parts']] == [1]
    assert [u['Key'] for u in s3.list_multipart_uploads(Bucket=bucket)['Uploads']] == ['other']
    assert 'other' not in keys(s3.list_objects_v2(Bucket=bucket))
    refused('InvalidPart', 400, s3.complete_multipart_upload, Bucket=bucket, Key='other', UploadId=up, MultipartUpload={'Parts': [{'PartNumber': 2, 'ETag': '"x"'}]})
    s3.abort_multipart_upload(Bucket=bucket, Key='other', UploadId=up)
    refused('NoSuchUpload', 404, s3.list_parts, Bucket=bucket, Key='other', UploadId=up)


@pytest.mark.parametrize('algorithm', ['CRC32', 'SHA1', 'SHA256'])
def test_checksums(s3, bucket, algorithm):
    s3.put_object(Bucket=bucket, Key='sum', Body=b'some bytes', ChecksumAlgorithm=algorithm)
    refused('BadDigest', 400, s3.put_object, Bucket=bucket, Key='bad', Body=b'some bytes', ChecksumCRC32='AAAAAA==')
    refused('404', 404, s3.head_object, Bucket=bucket, Key='bad')


def test_presigned(tandem, s3, bucket):
    for version in (None, 's3v4'):
        config = botocore.config.Config(signature_version=version, s3={'addressing_style': 'path'}) if version else botocore.config.Config(s3={'addressing_style': 'path'})
        c = boto3.client('s3', endpoint_url=tandem.status['aws'], region_name='us-east-1', aws_access_key_id=tandem.key['AccessKeyId'],
                         aws_secret_access_key=tandem.key['SecretAccessKey'], config=config)
        put = c.generate_presigned_url('put_object', Params={'Bucket': bucket, 'Key': 'pre signed'}, ExpiresIn=60)
        with urllib.request.urlopen(urllib.request.Request(put, data=b'by url', method='PUT', headers={'Content-Type': ''}), timeout=10) as answer:
            assert answer.status == 200
        url = c.generate_presigned_url('get_object', Params={'Bucket': bucket, 'Key': 'pre signed'}, ExpiresIn=60)
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == b'by url'
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(url.replace('pre%20signed', 'other'), timeout=10)
        assert e.value.code == 403


def test_who_may(tandem, s3, bucket):
    who = dict(endpoint_url=tandem.status['aws'], region_name='us-east-1')
    refused('InvalidAccessKeyId', 403, boto3.client('s3', aws_access_key_id='AKIAAAAAAAAAAAAAAAAA', aws_secret_access_key='x', **who).list_buckets)
    refused('SignatureDoesNotMatch', 403, boto3.client('s3', aws_access_key_id=tandem.key['AccessKeyId'], aws_secret_access_key='wrong', **who).list_buckets)
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(f"{tandem.status['aws']}/{bucket}/key", timeout=10)
    assert e.value.code == 403 and b'<Code>AccessDenied</Code>' in e.value.read()


@pytest.mark.parametrize('key', ['../../etc/passwd', 'a/../../b', '/abs', 'a//b', './x', 'x' * 300])
def test_keys_that_cannot_be_files(tandem, s3, bucket, key):
    with pytest.raises(ClientError) as e:
        s3.put_object(Bucket=bucket, Key=key, Body=b'x')
    assert e.value.response['ResponseMetadata']['HTTPStatusCode'] in (400, 403, 409)
    assert s3.list_objects_v2(Bucket=bucket)['KeyCount'] == 0


def test_a_posix_write_is_seen_at_once(tandem, s3, bucket):
    s3.put_object(Bucket=bucket, Key='d/file', Body=b'by s3')
    tag = s3.head_object(Bucket=bucket, Key='d/file')['ETag']
    path = os.path.join(tandem.state, 'volumes', bucket, 'd', 'file')
    assert open(path, 'rb').read() == b'by s3'
    open(path, 'wb').write(b'by hand, longer')
    assert s3.get_object(Bucket=bucket, Key='d/file')['Body'].read() == b'by hand, longer'
    assert s3.head_object(Bucket=bucket, Key='d/file')['ETag'] != tag
    os.symlink('/etc/passwd', os.path.join(tandem.state, 'volumes', bucket, 'link'))
    refused('NoSuchKey', 404, s3.get_object, Bucket=bucket, Key='link')


HEARD = '''
import json
def handler(event, context):
    for r in event['Records']:
        with open('/mnt/out/' + r['s3']['object']['sequencer'], 'w') as f:
            json.dump(r, f)
'''


def test_notifications(tandem, s3, bucket):
    fn = tandem.boto('lambda')
    out = 'out-' + uuid.uuid4().hex[:8]
    s3.create_bucket(Bucket=out)
    arn = create(fn, 'hear-' + out, zipped(HEARD), FileSystemConfigs=[
        {'Arn': f'arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/{out}', 'LocalMountPath': '/mnt/out'}])['FunctionArn']
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={'LambdaFunctionConfigurations': [
        {'Id': 'n1', 'LambdaFunctionArn': arn, 'Events': ['s3:ObjectCreated:*', 's3:ObjectRemoved:*'],
         'Filter': {'Key': {'FilterRules': [{'Name': 'prefix', 'Value': 'in/'}, {'Name': 'suffix', 'Value': '.txt'}]}}}]})
    got = s3.get_bucket_notification_configuration(Bucket=bucket)['LambdaFunctionConfigurations']
    assert got[0]['LambdaFunctionArn'] == arn and got[0]['Id'] == 'n1'
    folder = os.path.join(tandem.state, 'volumes', out)

    def heard():
        every = [json.load(open(os.path.join(folder, f))) for f in sorted(os.listdir(folder)) if not f.startswith('.') and os.path.getsize(os.path.join(folder, f))]
        return [r for r in every if first or r['s3']['object']['key'] != 'in/first.txt']
    first = True
    eventually(lambda: (s3.put_object(Bucket=bucket, Key='in/first.txt', Body=b'123'), heard())[1], 10, every=0.5)
    first = False                                                # they may still come in
    s3.put_object(Bucket=bucket, Key='in/a b.txt', Body=b'1234')
    s3.put_object(Bucket=bucket, Key='in/no.jpg', Body=b'')
    s3.put_object(Bucket=bucket, Key='else/no.txt', Body=b'')
    eventually(heard, 10)
    r = heard()[0]
    assert r['eventName'] == 'ObjectCreated:Put' and r['s3']['object']['key'] == 'in/a+b.txt' and r['s3']['object']['size'] == 4
    assert r['s3']['bucket']['name'] == bucket and r['s3']['configurationId'] == 'n1'
    with open(os.path.join(tandem.state, 'volumes', bucket, 'in', 'posix.txt'), 'w') as f:
        f.write('hello')
    eventually(lambda: any(r['s3']['object']['key'] == 'in/posix.txt' for r in heard()), 10)
    s3.delete_object(Bucket=bucket, Key='in/posix.txt')
    eventually(lambda: any(r['eventName'] == 'ObjectRemoved:Delete' for r in heard()), 10)
    import time
    time.sleep(0.5)
    names = [(r['eventName'].split(':')[0], r['s3']['object']['key']) for r in heard()]
    assert sorted(names) == sorted([('ObjectCreated', 'in/a+b.txt'), ('ObjectCreated', 'in/posix.txt'), ('ObjectRemoved', 'in/posix.txt')])
