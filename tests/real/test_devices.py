"""Dynamic resource allocation: slices that a driver would publish, claims of pods; the scheduler gives devices out and takes them back."""
import json

from conftest import eventually

GROUP = 'resource.k8s.io/v1'


def make(tandem, *docs):
    for doc in docs:
        tandem.kubectl('create', '-f', '-', text=json.dumps(doc))


def pod(name, claim):
    return {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name}, 'spec': {
        'terminationGracePeriodSeconds': 0, 'resourceClaims': [{'name': 'dev', **claim}],
        'containers': [{'name': 'c', 'image': 'not.there/at-all:1', 'resources': {'claims': [{'name': 'dev'}]}}]}}


def claim_of(tandem, name):
    statuses = tandem.get('pod', name)['status'].get('resourceClaimStatuses', [])
    return tandem.get('resourceclaim', statuses[0]['resourceClaimName']) if statuses else None


def test_devices_are_given_out_and_taken_back(tandem):
    node = eventually(lambda: tandem.get('nodes')['items'])[0]['metadata']['name']
    make(tandem,
         {'apiVersion': GROUP, 'kind': 'ResourceSlice', 'metadata': {'name': 'one'}, 'spec': {
             'driver': 'dev.example.com', 'nodeName': node, 'pool': {'name': 'p', 'generation': 1, 'resourceSliceCount': 1},
             'devices': [{'name': 'small', 'attributes': {'size': {'int': 1}}}, {'name': 'large', 'attributes': {'size': {'int': 9}}}]}},
         {'apiVersion': GROUP, 'kind': 'DeviceClass', 'metadata': {'name': 'large.example.com'}, 'spec': {
             'selectors': [{'cel': {'expression': "device.driver == 'dev.example.com' && device.attributes['dev.example.com'].size > 5"}}]}},
         {'apiVersion': GROUP, 'kind': 'ResourceClaimTemplate', 'metadata': {'name': 'large'}, 'spec': {'spec': {
             'devices': {'requests': [{'name': 'r', 'exactly': {'deviceClassName': 'large.example.com'}}]}}}},
         pod('dev-one', {'resourceClaimTemplateName': 'large'}))
    try:
        eventually(lambda: tandem.get('pod', 'dev-one')['spec'].get('nodeName') == node)
        claim = claim_of(tandem, 'dev-one')
        assert [(r['request'], r['driver'], r['pool'], r['device']) for r in claim['status']['allocation']['devices']['results']] == [('r', 'dev.example.com', 'p', 'large')]
        assert claim['status']['allocation']['nodeSelector']['nodeSelectorTerms'] == [{'matchFields': [{'key': 'metadata.name', 'operator': 'In', 'values': [node]}]}]
        assert [r['name'] for r in claim['status']['reservedFor']] == ['dev-one']
        assert 'resource.kubernetes.io/delete-protection' in claim['metadata']['finalizers']
        make(tandem, pod('dev-two', {'resourceClaimTemplateName': 'large'}))

        def waits():
            return [c for c in tandem.get('pod', 'dev-two')['status'].get('conditions', []) if c['type'] == 'PodScheduled' and 'cannot allocate all claims' in c.get('message', '')]
        eventually(waits)
        tandem.kubectl('delete', 'pod', 'dev-one', '--force', '--grace-period=0')
        eventually(lambda: tandem.get('pod', 'dev-two')['spec'].get('nodeName') == node)
        assert claim_of(tandem, 'dev-two')['status']['allocation']['devices']['results'][0]['device'] == 'large'
        tandem.kubectl('delete', 'pod', 'dev-two', '--force', '--grace-period=0')
        eventually(lambda: not [c for c in tandem.get('resourceclaims')['items'] if c['metadata']['name'].startswith('dev-')])

        # a claim of its own stays when its pod goes, and is free for the next one
        make(tandem, {'apiVersion': GROUP, 'kind': 'ResourceClaim', 'metadata': {'name': 'mine'}, 'spec': {
            'devices': {'requests': [{'name': 'r', 'exactly': {'deviceClassName': 'large.example.com'}}]}}}, pod('dev-three', {'resourceClaimName': 'mine'}))
        eventually(lambda: tandem.get('resourceclaim', 'mine').get('status', {}).get('reservedFor'))
        tandem.kubectl('delete', 'pod', 'dev-three', '--force', '--grace-period=0')
        eventually(lambda: not tandem.get('resourceclaim', 'mine').get('status', {}).get('allocation'))
    finally:
        for words in (['pod', 'dev-one', 'dev-two', 'dev-three', '--force', '--grace-period=0'], ['resourceclaim', 'mine'], ['resourceclaimtemplate', 'large'],
                      ['deviceclass', 'large.example.com'], ['resourceslice', 'one']):
            tandem.kubectl('delete', '--ignore-not-found', *words, check=False)
