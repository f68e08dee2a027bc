"""A cluster without machines, kept busy: nodes that only say they are there, pods that only say they run, and rounds of work
whose outcome is checked. It speaks plain HTTP and JSON to any Kubernetes API server.

Hollow plays the kubelets of some nodes: heartbeats, pod status, the end of deleted pods. Round is one piece of work in a
namespace of its own: each of its checks waits until the cluster's controllers have done their part, or fails with what was seen.
"""
import base64, collections, http.client, json, os, ssl, tempfile, threading, time, traceback, urllib.parse

import yaml


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f'{status}: {body[:300]}')
        self.status = status


class Api:
    """One kubeconfig's server; a connection a thread."""
    def __init__(self, kubeconfig):
        config = yaml.safe_load(open(kubeconfig))
        cluster, user = config['clusters'][0]['cluster'], config['users'][0]['user']
        self.context = ssl.create_default_context(cadata=base64.b64decode(cluster['certificate-authority-data']).decode())
        self.context.check_hostname = False
        with tempfile.TemporaryDirectory() as folder:
            for name, key in (('crt', 'client-certificate-data'), ('key', 'client-key-data')):
                open(os.path.join(folder, name), 'wb').write(base64.b64decode(user[key]))
            self.context.load_cert_chain(os.path.join(folder, 'crt'), os.path.join(folder, 'key'))
        self.where = urllib.parse.urlsplit(cluster['server']).netloc
        self.local, self.requests = threading.local(), collections.Counter()

    def connect(self, timeout):
        return http.client.HTTPSConnection(self.where, context=self.context, timeout=timeout)

    def call(self, method, path, body=None, kind='application/json'):
        for again in (True, False):
            if not getattr(self.local, 'connection', None):
                self.local.connection = self.connect(30)
            try:
                self.local.connection.request(method, path, None if body is None else json.dumps(body), {'Content-Type': kind, 'Accept': 'application/json', 'User-Agent': 'churn/1'})
                answer = self.local.connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.local.connection.close()
                self.local.connection = None
                if not again:
                    raise
        self.requests[method] += 1
        if answer.status >= 300:
            raise ApiError(answer.status, text.decode(errors='replace'))
        return json.loads(text or b'{}')

    def get(self, path):
        return self.call('GET', path)

    def find(self, path):
        """None when it is not there."""
        try:
            return self.get(path)
        except ApiError as e:
            if e.status == 404:
                return None
            raise

    def post(self, path, body):
        return self.call('POST', path, body)

    def patch(self, path, body, kind='merge'):
        return self.call('PATCH', path, body, {'merge': 'application/merge-patch+json', 'strategic': 'application/strategic-merge-patch+json'}[kind])

    def delete(self, path, **options):
        return self.call('DELETE', path, {'kind': 'DeleteOptions', 'apiVersion': 'v1', **options})

    def watch(self, path, revision):
        """(type, object) until the server ends it."""
        connection = self.connect(70)
        connection.request('GET', f'{path}?watch=1&resourceVersion={revision}&timeoutSeconds=60&allowWatchBookmarks=true')
        for line in connection.getresponse():
            event = json.loads(line)
            yield event['type'], event['object']


class Hollow(threading.Thread):
    """The kubelets of nodes that are not there."""
    def __init__(self, api, nodes=3):
        super().__init__(daemon=True)
        self.api, self.names, self.ended, self.ip = api, [f'hollow-{i}' for i in range(nodes)], False, 0
        self.ran = collections.Counter()

    def register(self):
        for i, name in enumerate(self.names):
            amount = {'cpu': '64', 'memory': '256Gi', 'pods': '500', 'ephemeral-storage': '100Gi'}
            self.api.post('/api/v1/nodes', {'kind': 'Node', 'apiVersion': 'v1', 'metadata': {'name': name, 'labels': {'kubernetes.io/hostname': name}}, 'spec': {'podCIDR': f'10.200.{i}.0/24'}})
            self.api.patch(f'/api/v1/nodes/{name}/status', {'status': {'capacity': amount, 'allocatable': amount, 'addresses': [{'type': 'InternalIP', 'address': f'192.0.2.{i + 1}'}], 'conditions': self.conditions()}})
            self.api.post('/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases', {'kind': 'Lease', 'apiVersion': 'coordination.k8s.io/v1', 'metadata': {'name': name}, 'spec': {'holderIdentity': name, 'leaseDurationSeconds': 40, 'renewTime': stamp(micro=True)}})
        threading.Thread(target=self.beat, daemon=True).start()
        self.start()

    def conditions(self):
        return [{'type': t, 'status': s, 'reason': 'Hollow', 'message': '', 'lastHeartbeatTime': stamp(), 'lastTransitionTime': stamp()}
                for t, s in (('Ready', 'True'), ('MemoryPressure', 'False'), ('DiskPressure', 'False'), ('PIDPressure', 'False'))]

    def beat(self):
        while not self.ended:
            for name in self.names:
                try:
                    self.api.patch(f'/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}', {'spec': {'renewTime': stamp(micro=True)}})
                except Exception:
                    traceback.print_exc()
            time.sleep(8)

    def run(self):
        while not self.ended:
            try:
                pods = self.api.get('/api/v1/pods')
                for pod in pods['items']:
                    self.look(pod)
                for kind, pod in self.api.watch('/api/v1/pods', pods['metadata']['resourceVersion']):
                    if kind == 'ERROR':
                        break
                    if kind in ('ADDED', 'MODIFIED'):
                        self.look(pod)
            except (OSError, ApiError, http.client.HTTPException) as e:
                if not self.ended:
                    print(f'hollow: {e}', flush=True)
                    time.sleep(0.5)

    def look(self, pod):
        meta, spec, status = pod['metadata'], pod['spec'], pod.get('status', {})
        path = f'/api/v1/namespaces/{meta["namespace"]}/pods/{meta["name"]}'
        try:
            if spec.get('nodeName') not in self.names:
                return
            if meta.get('deletionTimestamp'):
                self.api.delete(path, gracePeriodSeconds=0, preconditions={'uid': meta['uid']})
                self.ran['ended'] += 1
            elif status.get('phase', 'Pending') == 'Pending':
                self.ip += 1
                job = spec['restartPolicy'] != 'Always'
                ip = f'10.200.{self.ip // 250 % 250}.{self.ip % 250 + 1}'
                self.api.patch(path + '/status', {'metadata': {'uid': meta['uid']}, 'status': {
                    'phase': 'Succeeded' if job else 'Running', 'podIP': ip, 'podIPs': [{'ip': ip}], 'hostIP': '192.0.2.1', 'startTime': stamp(),
                    'conditions': [{'type': t, 'status': 'False' if job and t != 'Initialized' else 'True', 'lastTransitionTime': stamp(), **({'reason': 'PodCompleted'} if job else {})}
                                   for t in ('Initialized', 'ContainersReady', 'Ready')] + [c for c in status.get('conditions', []) if c['type'] == 'PodScheduled'],
                    'containerStatuses': [{'name': c['name'], 'image': c['image'], 'imageID': '', 'ready': not job, 'restartCount': 0, 'started': not job,
                                           'state': {'terminated': {'exitCode': 0, 'reason': 'Completed', 'startedAt': stamp(), 'finishedAt': stamp()}} if job else {'running': {'startedAt': stamp()}}}
                                          for c in spec['containers']]}})
                self.ran['ran'] += 1
        except ApiError as e:
            if e.status not in (404, 409, 422):
                raise


def stamp(micro=False):
    now = time.time()
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now)) + (f'.{int(now % 1 * 1e6):06d}' if micro else '') + 'Z'


def template(app, image='none:1', policy='Always'):
    return {'metadata': {'labels': {'app': app}}, 'spec': {'restartPolicy': policy, 'terminationGracePeriodSeconds': 1,
            'containers': [{'name': 'c', 'image': image, 'resources': {'requests': {'cpu': '10m', 'memory': '8Mi'}}}]}}


class Round:
    """One namespace's life."""
    def __init__(self, api, name, nodes, tally, limit):
        self.api, self.name, self.nodes, self.tally, self.limit = api, name, nodes, tally, limit
        self.core, self.apps, self.batch = f'/api/v1/namespaces/{name}', f'/apis/apps/v1/namespaces/{name}', f'/apis/batch/v1/namespaces/{name}'

    def check(self, what, seen, seconds=None):
        """Waits until seen() is true."""
        until, last = time.time() + (seconds or self.limit), None
        while time.time() < until:
            last = seen()
            if last is True:
                return self.tally(what, True)
            time.sleep(0.1)
        return self.tally(what, False, f'{self.name}: {what}: not within {seconds or self.limit} s: {json.dumps(last)[:700]}')

    def status(self, path, **want):
        status = (self.api.find(path) or {}).get('status', {})
        return all(status.get(k, 0) == v for k, v in want.items()) or status

    def endpoints(self, service):
        slices = self.api.get(f'/apis/discovery.k8s.io/v1/namespaces/{self.name}/endpointslices?labelSelector=kubernetes.io/service-name%3D{service}')['items']
        return sum(1 for s in slices for e in s['endpoints'] or [] if e.get('conditions', {}).get('ready'))

    def pods(self, app):
        return [p for p in self.api.get(f'{self.core}/pods?labelSelector=app%3D{app}')['items'] if not p['metadata'].get('deletionTimestamp')]

    def gone(self):
        namespace = self.api.find(f'/api/v1/namespaces/{self.name}')
        return namespace is None or namespace['status']

    def begin(self):
        self.api.post('/api/v1/namespaces', {'kind': 'Namespace', 'apiVersion': 'v1', 'metadata': {'name': self.name, 'labels': {'churn': 'yes'}}})
        self.check('namespace gets its account', lambda: self.api.find(f'{self.core}/serviceaccounts/default') is not None)
        self.check('namespace gets its certificate', lambda: self.api.find(f'{self.core}/configmaps/kube-root-ca.crt') is not None)
        self.api.post(f'{self.core}/resourcequotas', {'kind': 'ResourceQuota', 'apiVersion': 'v1', 'metadata': {'name': 'q'}, 'spec': {'hard': {'pods': '100', 'count/configmaps': '50'}}})
        self.check('quota is counted', lambda: (self.api.find(f'{self.core}/resourcequotas/q') or {}).get('status', {}).get('used', {}).get('count/configmaps') == '1')
        selector = lambda app: {'matchLabels': {'app': app}}
        self.api.post(f'{self.core}/services', {'kind': 'Service', 'apiVersion': 'v1', 'metadata': {'name': 'web'}, 'spec': {'selector': {'app': 'web'}, 'ports': [{'port': 80}]}})
        self.api.post(f'{self.apps}/deployments', {'kind': 'Deployment', 'apiVersion': 'apps/v1', 'metadata': {'name': 'web'}, 'spec': {'replicas': 3, 'selector': selector('web'), 'template': template('web')}})
        self.api.post(f'{self.apps}/statefulsets', {'kind': 'StatefulSet', 'apiVersion': 'apps/v1', 'metadata': {'name': 'db'}, 'spec': {'replicas': 2, 'serviceName': 'db', 'selector': selector('db'), 'template': template('db')}})
        self.api.post(f'{self.apps}/daemonsets', {'kind': 'DaemonSet', 'apiVersion': 'apps/v1', 'metadata': {'name': 'agent'}, 'spec': {'selector': selector('agent'), 'template': template('agent')}})
        self.api.post(f'{self.batch}/jobs', {'kind': 'Job', 'apiVersion': 'batch/v1', 'metadata': {'name': 'work'}, 'spec': {'completions': 4, 'parallelism': 2, 'template': template('work', policy='Never')}})
        self.api.post(f'/apis/policy/v1/namespaces/{self.name}/poddisruptionbudgets', {'kind': 'PodDisruptionBudget', 'apiVersion': 'policy/v1', 'metadata': {'name': 'web'}, 'spec': {'minAvailable': 2, 'selector': selector('web')}})

    def middle(self):
        self.check('deployment comes up', lambda: self.status(f'{self.apps}/deployments/web', readyReplicas=3, updatedReplicas=3))
        self.check('stateful set comes up', lambda: self.status(f'{self.apps}/statefulsets/db', readyReplicas=2))
        self.check('daemon set comes up', lambda: self.status(f'{self.apps}/daemonsets/agent', numberReady=self.nodes, desiredNumberScheduled=self.nodes))
        self.check('job completes', lambda: self.status(f'{self.batch}/jobs/work', succeeded=4))
        self.check('endpoints follow', lambda: self.endpoints('web') == 3 or self.endpoints('web'))
        self.check('disruption budget is counted', lambda: self.status(f'/apis/policy/v1/namespaces/{self.name}/poddisruptionbudgets/web', currentHealthy=3, disruptionsAllowed=1))
        self.api.patch(f'{self.apps}/deployments/web/scale', {'spec': {'replicas': 5}})
        self.check('deployment scales', lambda: self.status(f'{self.apps}/deployments/web', readyReplicas=5))
        self.api.patch(f'{self.apps}/deployments/web', {'spec': {'template': {'spec': {'containers': [{'name': 'c', 'image': 'none:2'}]}}}}, 'strategic')
        self.check('deployment rolls', lambda: self.status(f'{self.apps}/deployments/web', readyReplicas=5, updatedReplicas=5, replicas=5))
        self.check('endpoints follow the roll', lambda: self.endpoints('web') == 5 or self.endpoints('web'))
        victim = next(p['metadata'] for p in self.pods('web') if 'deletionTimestamp' not in p['metadata'])   # old ones may still be going
        self.api.delete(f'{self.core}/pods/{victim["name"]}')
        self.check('a lost pod is replaced', lambda: victim['uid'] not in [p['metadata']['uid'] for p in self.pods('web')] and len(self.pods('web')) == 5
                   and self.status(f'{self.apps}/deployments/web', readyReplicas=5))
        self.api.patch(f'{self.apps}/statefulsets/db', {'spec': {'replicas': 1}})
        self.check('stateful set shrinks from its end', lambda: [p['metadata']['name'] for p in self.pods('db')] == ['db-0'])

    def end(self):
        self.api.delete(f'{self.batch}/jobs/work', propagationPolicy='Background')
        self.check('pods go with their job', lambda: self.pods('work') == [] or len(self.pods('work')))
        self.api.delete(f'{self.apps}/deployments/web', propagationPolicy='Foreground')
        self.check('foreground deletion ends', lambda: self.api.find(f'{self.apps}/deployments/web') is None and not self.pods('web'))
        self.api.delete(f'{self.apps}/daemonsets/agent', propagationPolicy='Orphan')
        self.check('orphans stay', lambda: self.api.find(f'{self.apps}/daemonsets/agent') is None and len(self.pods('agent')) == self.nodes
                   and not any(p['metadata'].get('ownerReferences') for p in self.pods('agent')))
        self.api.delete(f'/api/v1/namespaces/{self.name}')
        self.check('namespace goes', self.gone, max(60, self.limit))

    def run(self):
        for part in (self.begin, self.middle, self.end):
            part()


def churn(api, seconds, all_run=lambda: True, workers=3, limit=40, nodes=3):
    """Rounds until the time is over; gives (Counter of passed checks, Counter of failed ones, summary)."""
    hollow = Hollow(api, nodes)
    hollow.register()
    good, bad, lock, until, rounds = collections.Counter(), collections.Counter(), threading.Lock(), time.time() + seconds, []

    def tally(what, ok, why=''):
        with lock:
            (good if ok else bad)[what] += 1
            if not ok:
                print('FAILED', why, flush=True)
        return ok

    def work(n):
        i = 0
        while time.time() < until and sum(bad.values()) < 20 and all_run():
            name, i = f'churn-{n}-{i}', i + 1
            try:
                Round(api, name, nodes, tally, limit).run()
            except Exception as e:
                tally('round', False, f'{name}: {e!r}\n{traceback.format_exc()}')
            rounds.append(name)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    hollow.ended = True
    return good, bad, f'{len(rounds)} rounds, {hollow.ran["ran"]} pods ran, {hollow.ran["ended"]} ended, {sum(api.requests.values())} requests of the churn itself'
