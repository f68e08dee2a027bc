"""ValidatingAdmissionPolicy and MutatingAdmissionPolicy as a kubectl user meets them."""
import re

import pytest

from conftest import eventually

VALIDATING = '''
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NAME}
spec:
  failurePolicy: Fail
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]
  matchConditions: [{name: not-free, expression: "!('free' in object.metadata.?labels.orValue({}))"}]
  variables: [{name: replicas, expression: object.spec.replicas}]
  validations:
  - expression: variables.replicas <= int(params.data.max)
    messageExpression: "'replicas ' + string(variables.replicas) + ' > ' + params.data.max"
    reason: Forbidden
  - {expression: "object.spec.template.spec.containers.all(c, !c.image.endsWith(':latest'))", message: no latest}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NAME}
spec:
  policyName: NAME
  validationActions: [Deny]
  paramRef: {name: limits, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAME}}}
'''

PLAIN = '''
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NAME}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, DELETE], resources: [configmaps]}]
  validations:
VALIDATIONS
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NAME}
spec: {policyName: NAME, validationActions: ACTIONS, matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAME}}}}
'''

MUTATING = '''
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: NAME}
spec:
  reinvocationPolicy: IfNeeded
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  matchConditions: [{name: once, expression: "!object.spec.containers.exists(c, c.name == 'side')"}]
  mutations:
MUTATIONS
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: NAME}
spec: {policyName: NAME, matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAME}}}}
'''


@pytest.fixture
def k(tandem, request):
    """kubectl in a namespace of its own; policies carry its name and go with it."""
    name = re.sub(r'[^a-z0-9]+', '-', request.node.name)[:60].strip('-')
    tandem.kubectl('create', 'namespace', name)
    eventually(lambda: tandem.get('serviceaccount', 'default', '-n', name))

    def run(*words, **more):
        return tandem.kubectl('-n', name, *words, check=False, **more)
    run.name = name
    run.apply = lambda text, **more: run('apply', '-f', '-', text=re.sub(r'\b(NAME|[A-Z]{7,})\b', lambda m: {'NAME': name, **more}.get(m[0], m[0]), text))
    yield run
    for kind in ('validatingadmissionpolicy', 'mutatingadmissionpolicy'):
        tandem.kubectl('delete', kind + 'binding', name, '--ignore-not-found')
        tandem.kubectl('delete', kind, name, '--ignore-not-found')
    tandem.kubectl('delete', 'namespace', name, '--wait=false')


def deploy(k, name, replicas, image='x:1'):
    return k('create', 'deployment', name, f'--image={image}', f'--replicas={replicas}')


def test_validating_with_parameters(k):
    assert k.apply(VALIDATING).returncode == 0
    said = f"is forbidden: ValidatingAdmissionPolicy '{k.name}' with binding '{k.name}' denied request: "
    assert said + 'failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction' in deploy(k, 'a', 1).stderr
    k('create', 'configmap', 'limits', '--from-literal=max=3')
    assert said + 'replicas 4 > 3' in deploy(k, 'b', 4).stderr
    assert said + 'no latest' in deploy(k, 'c', 1, 'x:latest').stderr
    assert deploy(k, 'd', 3).returncode == 0
    k('patch', 'configmap', 'limits', '--type=merge', '-p', '{"data":{"max":"5"}}')      # parameters count from the next request on
    assert deploy(k, 'e', 5).returncode == 0
    assert said + 'replicas 6 > 5' in k('patch', 'deployment', 'e', '--type=merge', '-p', '{"spec":{"replicas":6}}').stderr
    k('delete', 'validatingadmissionpolicybinding', k.name)
    assert deploy(k, 'f', 9).returncode == 0


def test_authorizer_namespace_and_deletes(k):
    rules = '''
  - {expression: "authorizer.requestResource.check('create').allowed()", message: may not}
  - {expression: "authorizer.group('').resource('pods').namespace('NAME').check('get').allowed()", message: may not get}
  - {expression: "!authorizer.serviceAccount('NAME', 'default').group('').resource('pods').namespace('NAME').check('get').allowed()", message: account may}
  - {expression: "namespaceObject.metadata.name == request.namespace", message: elsewhere}
  - {expression: "request.operation != 'DELETE' || oldObject.metadata.name != 'keep'", message: kept}
'''
    assert k.apply(PLAIN, VALIDATIONS=rules.replace('NAME', k.name), ACTIONS='[Deny]').returncode == 0
    made = k('create', 'configmap', 'keep')
    assert made.returncode == 0, made.stderr
    assert 'denied request: kept' in k('delete', 'configmap', 'keep').stderr
    k('create', 'configmap', 'other')
    assert k('delete', 'configmap', 'other').returncode == 0


def test_warnings_and_errors(k):
    assert k.apply(PLAIN, VALIDATIONS='  - {expression: "object.data.x == \'y\'"}', ACTIONS='[Warn]').returncode == 0
    warned = k('create', 'configmap', 'a', '--from-literal=x=z')
    assert warned.returncode == 0
    assert f"Warning: Validation failed for ValidatingAdmissionPolicy '{k.name}' with binding '{k.name}': failed expression: object.data.x == 'y'" in warned.stderr
    assert "expression 'object.data.x == 'y'' resulted in error: no such key: x" in k('create', 'configmap', 'b', '--from-literal=y=z').stderr


def test_expressions_are_checked(k, tandem):
    refused = k.apply(PLAIN, VALIDATIONS='  - {expression: "nothing"}\n  - {expression: "1 + 1"}', ACTIONS='[Deny]').stderr
    assert "spec.validations[0].expression: Invalid value: \"nothing\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing'" in refused
    assert 'spec.validations[1].expression: Invalid value: "1 + 1": must evaluate to bool but got int' in refused
    assert k.apply(PLAIN, VALIDATIONS='  - {expression: "object.datax.y == \'z\'"}', ACTIONS='[Deny]').returncode == 0
    status = eventually(lambda: tandem.get('validatingadmissionpolicy', k.name)['status'].get('typeChecking'))
    assert status['expressionWarnings'][0]['fieldRef'] == 'spec.validations[0].expression'
    assert "v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'datax'" in status['expressionWarnings'][0]['warning']


def test_mutating(k, tandem):
    both = '''
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >
        Object{metadata: Object.metadata{labels: {'side': request.namespace}},
               spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 'side:1'}]}}
  - patchType: JSONPatch
    jsonPatch:
      expression: "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: object.metadata.labels.side}]"
'''
    assert k.apply(MUTATING, MUTATIONS=both).returncode == 0
    done = k('run', 'main', '--image=main:1')
    assert done.returncode == 0, done.stderr
    pod = tandem.get('pod', 'main', '-n', k.name)
    assert pod['metadata']['labels'] == {'run': 'main', 'side': k.name, 'a/b': k.name}
    main, side = pod['spec']['containers']
    assert side['name'] == 'side' and side['imagePullPolicy'] == 'IfNotPresent'
    assert side['volumeMounts'] == main['volumeMounts']                                   # the other plugins saw the container, too


def test_mutating_refuses_what_is_atomic(k):
    atomic = '''
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{spec: Object.spec{nodeSelector: {'a': 'b'}}}"}
'''
    assert k.apply(MUTATING, MUTATIONS=atomic).returncode == 0
    assert f"policy '{k.name}' with binding '{k.name}' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic " \
        'arrays, maps or structs: .spec.nodeSelector' in k('run', 'main', '--image=main:1').stderr


def test_mutating_refuses_a_misnamed_type(k):
    wrong = '''
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{spec: Object.spec{containers: [Object.spec.initContainers{name: 'side', image: 'side:1'}]}}"}
'''
    assert k.apply(MUTATING, MUTATIONS=wrong).returncode == 0
    assert 'type mismatch: unexpected type name "Object.spec.initContainers", expected "Object.spec.containers", which matches field name path from ' \
        'root Object type' in k('run', 'main', '--image=main:1').stderr
