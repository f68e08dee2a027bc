"""How soon functions give back what they hold idle when a pod is bound that asks for it: from the API's answer to the pod's creation
(with spec.nodeName, so it is bound then) until their processes have gone."""
import io, json, socket, time, zipfile

CODE = '''
import time
held = bytearray(40 << 20)
for i in range(0, len(held), 4096):
    held[i] = 1
def handler(event, context):
    time.sleep(event)
'''
ROLE = 'arn:aws:iam::000000000000:role/any'


def run(row, percentile, one, rounds=9, n=8):
    import concurrent.futures, kubernetes
    from test_scaling import left
    core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(one.state + '/kubeconfig'))
    fn = one.boto('lambda')
    code = io.BytesIO()
    with zipfile.ZipFile(code, 'w') as z:
        z.writestr('app.py', CODE)
    fn.create_function(FunctionName='bench-holder', Runtime='python3.11', Role=ROLE, Handler='app.handler', Code={'ZipFile': code.getvalue()}, MemorySize=256, Timeout=60)
    fn.get_waiter('function_active_v2').wait(FunctionName='bench-holder')
    s = socket.socket(socket.AF_UNIX)
    s.connect(one.state + '/run/gateway.sock')
    f = s.makefile('rb')

    def there():
        s.sendall(b'GET /instances HTTP/1.1\r\nHost: x\r\n\r\n')
        length = 0
        while (line := f.readline()) != b'\r\n':
            if line.lower().startswith(b'content-length:'):
                length = int(line.split(b':')[1])
        return sum(len(v['instances']) for v in json.loads(f.read(length))['functions'] if v['name'] == 'bench-holder')

    node = core.list_node().items[0].metadata.name
    took = []
    for i in range(rounds):
        with concurrent.futures.ThreadPoolExecutor(n) as pool:
            list(pool.map(lambda _: fn.invoke(FunctionName='bench-holder', Payload=b'2'), range(n)))
        had, name = there(), f'bench-large-{i}'
        core.create_namespaced_pod('default', {'metadata': {'name': name}, 'spec': {'nodeName': node, 'terminationGracePeriodSeconds': 0, 'containers': [
            {'name': 'c', 'image': 'gallery:1', 'command': ['/bin/sleep', '1000'], 'resources': {'requests': {'memory': f'{left(one) - 64}Mi'}}}]}})
        began = time.perf_counter()
        while there() > 1 and time.perf_counter() - began < 10:
            time.sleep(0.001)
        took.append((time.perf_counter() - began) * 1000)
        core.delete_namespaced_pod(name, 'default', grace_period_seconds=0)
    fn.delete_function(FunctionName='bench-holder')
    row(f'capacity: {had} idle instances of 40 MB give way to a pod', percentile(took, 50), 'ms', '', f'least {min(took):.1f}, most {max(took):.1f}')
