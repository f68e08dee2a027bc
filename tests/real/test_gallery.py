"""The main job, from outside: a pod and a function on one volume."""
import io, json, os, time, urllib.request

from conftest import eventually


def page(gallery):
    port = gallery.get('service', 'gallery')['spec']['ports'][0]['nodePort']
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=60) as answer:
        return answer.read().decode()


def jpeg(width, height):
    import sys
    from conftest import TOP
    sys.path.insert(0, os.path.join(TOP, 'build', 'gallery', 'function'))
    from PIL import Image
    out = io.BytesIO()
    Image.linear_gradient('L').resize((width, height)).convert('RGB').save(out, 'JPEG')
    return out.getvalue()


def test_two_replicas_run(gallery):
    pods = gallery.get('pods', '-l', 'app=gallery')['items']
    assert len(pods) == 2
    assert all(p['status']['phase'] == 'Running' for p in pods)
    assert len({p['status']['podIP'] for p in pods}) == 2


def test_put_fires_the_function_and_the_page_shows_it(gallery):
    s3 = gallery.boto('s3')
    picture = jpeg(1200, 800)
    s3.put_object(Bucket='gallery', Key='pictures/real test.jpg', Body=picture)
    told = eventually(lambda: json.loads(s3.get_object(Bucket='gallery', Key='thumbs/real test.json')['Body'].read()))
    text = eventually(lambda: (lambda t: t if 'real test.jpg' in t else None)(page(gallery)))
    assert 'took' in text and 'started in' in text
    thumb = s3.get_object(Bucket='gallery', Key='thumbs/real test.jpg')['Body'].read()
    assert thumb[:2] == b'\xff\xd8' and len(thumb) < len(picture)
    assert told['start_ms'] is not None and told['start_ms'] > 0 and told['duration_ms'] > 0


def test_the_page_is_served_by_both_replicas(gallery):
    seen = set()
    for _ in range(40):
        seen.add(page(gallery).split('served by ')[1].split('<')[0])
    assert len(seen) == 2


def test_a_write_in_the_pod_is_seen_through_s3_at_once(gallery):
    pod = gallery.get('pods', '-l', 'app=gallery')['items'][0]['metadata']['name']
    gallery.kubectl('exec', pod, '--', '/bin/sh', '-c', 'echo from the pod > /pictures/note.txt')
    assert gallery.boto('s3').get_object(Bucket='gallery', Key='note.txt')['Body'].read() == b'from the pod\n'


def test_a_jpeg_written_in_the_pod_fires_the_function_too(gallery):
    pod = gallery.get('pods', '-l', 'app=gallery')['items'][0]['metadata']['name']
    gallery.kubectl('exec', pod, '--', '/bin/sh', '-c', 'cp /pictures/pictures/first-light.jpg /pictures/pictures/copied.jpg')
    eventually(lambda: 'copied.jpg' in page(gallery), 20)


def instances(gallery):
    """Processes that serve the function, found from outside: by the name of their cgroup."""
    return gallery.pids(group='thumbnail')


def test_when_nobody_calls_the_function_has_no_process(gallery):
    gallery.boto('lambda').invoke(FunctionName='thumbnail', Payload=json.dumps({'Records': []}))
    assert instances(gallery)
    eventually(lambda: not instances(gallery), 150, every=1)
    assert len(gallery.get('pods', '-l', 'app=gallery')['items']) == 2


def test_advise_has_a_row_for_each_workload(gallery):
    def named():                                      # the meters are written every few seconds
        text = json.dumps(json.loads(gallery.tandem('advise', '--json').stdout)['workloads'])
        return 'gallery' in text and 'thumbnail' in text
    eventually(named, 60, every=0.5)
    assert 'gallery' in gallery.tandem('advise').stdout
