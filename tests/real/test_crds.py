"""Definitions of custom resources: what their conditions say, names that are taken, objects within objects, columns, and how they go."""
import json

import pytest

from conftest import eventually, running


@pytest.fixture(scope='module')
def one():
    with running('--api-only') as it:
        yield it


def definition(plural, kind, group='crd.example.com', schema=None, notes=None, short=(), **version):
    return {'apiVersion': 'apiextensions.k8s.io/v1', 'kind': 'CustomResourceDefinition', 'metadata': {'name': f'{plural}.{group}', 'annotations': notes or {}},
            'spec': {'group': group, 'scope': 'Namespaced', 'names': {'plural': plural, 'singular': kind.lower(), 'kind': kind, 'listKind': kind + 'List', 'shortNames': list(short)},
                     'versions': [{'name': 'v1', 'served': True, 'storage': True,
                                   'schema': {'openAPIV3Schema': schema or {'type': 'object', 'x-kubernetes-preserve-unknown-fields': True}}, **version}]}}


def make(one, doc, check=True):
    return one.kubectl('create', '-f', '-', '-o', 'json', text=json.dumps(doc), check=check)


def conditions(one, name):
    done = one.kubectl('get', 'crd', name, '-o', 'json', check=False)
    return {c['type']: c for c in json.loads(done.stdout)['status'].get('conditions', [])} if done.returncode == 0 else None


def test_names_that_are_taken(one):
    make(one, definition('firsts', 'First', short=['fi']))
    eventually(lambda: conditions(one, 'firsts.crd.example.com').get('Established', {}).get('status') == 'True')
    make(one, definition('seconds', 'First', short=['fi']))
    eventually(lambda: conditions(one, 'seconds.crd.example.com').get('Established', {}).get('status') == 'False')
    said = conditions(one, 'seconds.crd.example.com')
    assert said['NamesAccepted']['reason'] == 'ListKindConflict' and said['NamesAccepted']['message'] == '"FirstList" is already in use'
    assert said['Established']['reason'] == 'NotAccepted'
    assert one.kubectl('get', '--raw', '/apis/crd.example.com/v1/namespaces/default/seconds', check=False).returncode != 0
    one.kubectl('delete', 'crd', 'firsts.crd.example.com')
    eventually(lambda: conditions(one, 'seconds.crd.example.com')['Established']['status'] == 'True')
    assert one.kubectl('get', '--raw', '/apis/crd.example.com/v1/namespaces/default/seconds').returncode == 0


def test_groups_of_kubernetes_want_approval(one):
    done = make(one, definition('news', 'New', group='new.k8s.io'), check=False)
    assert done.returncode != 0 and 'api-approved.kubernetes.io' in done.stderr
    assert make(one, definition('news', 'New', group='new.k8s.io', notes={'api-approved.kubernetes.io': 'me'}), check=False).returncode != 0
    make(one, definition('news', 'New', group='new.k8s.io', notes={'api-approved.kubernetes.io': 'unapproved, an experiment'}))
    said = eventually(lambda: (conditions(one, 'news.new.k8s.io') or {}).get('KubernetesAPIApprovalPolicyConformant'))
    assert said['status'] == 'False' and said['reason'] == 'UnapprovedAnnotation' and said['message'] == 'not approved: "unapproved, an experiment"'
    one.kubectl('annotate', '--overwrite', 'crd', 'news.new.k8s.io', 'api-approved.kubernetes.io=https://example.com/pull/1')
    eventually(lambda: conditions(one, 'news.new.k8s.io')['KubernetesAPIApprovalPolicyConformant']['reason'] == 'ApprovedAnnotation')


def test_objects_within_objects(one):
    schema = {'type': 'object', 'properties': {'spec': {'type': 'object', 'properties': {
        'template': {'type': 'object', 'x-kubernetes-embedded-resource': True, 'x-kubernetes-preserve-unknown-fields': True}}}}}
    make(one, definition('wraps', 'Wrap', schema=schema))
    eventually(lambda: conditions(one, 'wraps.crd.example.com').get('Established', {}).get('status') == 'True')

    def wrap(name, template):
        return make(one, {'apiVersion': 'crd.example.com/v1', 'kind': 'Wrap', 'metadata': {'name': name}, 'spec': {'template': template}}, check=False)
    eventually(lambda: wrap('good', {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'x', 'labels': {'a': 'b'}}, 'spec': {'any': 1}}).returncode == 0)
    for name, template, said in (('a', {'kind': 'Pod'}, 'spec.template.apiVersion: Required'), ('b', {'apiVersion': 'v1', 'kind': 'no way'}, 'spec.template.kind: Invalid'),
                                 ('c', {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'labels': {'a': 'not/good'}}}, 'spec.template.metadata.labels: Invalid'),
                                 ('d', {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': 'a/b'}}, 'spec.template.metadata.name: Invalid'),
                                 ('e', {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'strange': 1}}, 'unknown field "spec.template.metadata.strange"'),
                                 ('f', {'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'labels': 3}}, 'cannot be handled')):
        done = wrap(name, template)
        assert done.returncode != 0 and said in done.stderr, (name, done.stderr)


def test_columns(one):
    columns = [{'name': 'Ready', 'type': 'string', 'jsonPath': '.status.conditions[?(@.type=="Ready")].status'}, {'name': 'Last', 'type': 'integer', 'jsonPath': '.spec.list[-1]'},
               {'name': 'All', 'type': 'string', 'jsonPath': '.spec.list'}, {'name': 'Since', 'type': 'date', 'jsonPath': '.spec.when'}, {'name': 'Not', 'type': 'integer', 'jsonPath': '.spec.text'}]
    make(one, definition('rows', 'Row', additionalPrinterColumns=columns))
    eventually(lambda: conditions(one, 'rows.crd.example.com').get('Established', {}).get('status') == 'True')
    row = {'apiVersion': 'crd.example.com/v1', 'kind': 'Row', 'metadata': {'name': 'r'}, 'spec': {'list': [1, 5], 'when': 'never', 'text': 'x'},
           'status': {'conditions': [{'type': 'Other', 'status': 'False'}, {'type': 'Ready', 'status': 'True'}]}}
    eventually(lambda: make(one, row, check=False).returncode == 0)
    lines = one.kubectl('get', 'rows', 'r').stdout.splitlines()
    assert lines[0].split() == ['NAME', 'READY', 'LAST', 'ALL', 'SINCE', 'NOT'] and lines[1].split() == ['r', 'True', '5', '[1,5]', '<invalid>']


def test_a_definition_waits_for_its_objects(one):
    make(one, definition('holds', 'Hold'))
    eventually(lambda: conditions(one, 'holds.crd.example.com').get('Established', {}).get('status') == 'True')
    held = {'apiVersion': 'crd.example.com/v1', 'kind': 'Hold', 'metadata': {'name': 'h', 'finalizers': ['example.com/wait']}}
    eventually(lambda: make(one, held, check=False).returncode == 0)
    one.kubectl('delete', 'crd', 'holds.crd.example.com', '--wait=false')
    eventually(lambda: conditions(one, 'holds.crd.example.com')['Terminating']['reason'] == 'InstanceDeletionInProgress')
    done = make(one, {**held, 'metadata': {'name': 'later'}}, check=False)
    assert done.returncode != 0 and 'create not allowed while custom resource definition is terminating' in done.stderr
    one.kubectl('patch', 'holds', 'h', '--type', 'merge', '-p', '{"metadata":{"finalizers":null}}')
    eventually(lambda: conditions(one, 'holds.crd.example.com') is None)
