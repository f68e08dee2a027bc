"""Layers through an unmodified boto3."""
import json

from test_lambda import call, create, fn, refused, zipped  # noqa: F401 (fn is a fixture)


def layer(fn, name, files):
    first, *rest = files.items()
    return fn.publish_layer_version(LayerName=name, Content={'ZipFile': zipped(first[1], first[0], rest)}, CompatibleRuntimes=['python3.11'],
                                    Description='of ' + name)


USE = 'import shared, os\ndef handler(e, c):\n    return [shared.SAY, sorted(os.listdir("/opt")), open("/opt/data.txt").read()]\n'


def test_layers_lie_in_opt_the_last_on_top(fn):
    low = layer(fn, 'low', {'python/shared.py': 'SAY = "low"\n', 'data.txt': 'low'})
    top = layer(fn, 'Top_Layer', {'python/shared.py': 'SAY = "top"\n', 'bin/tool': '#!/bin/sh\n'})
    assert low['Version'] == 1 and low['LayerVersionArn'].endswith(':layer:low:1') and low['Content']['CodeSize'] > 100
    made = create(fn, 'layered', code=zipped(USE), Layers=[low['LayerVersionArn'], top['LayerVersionArn']])
    assert [l['Arn'] for l in made['Layers']] == [low['LayerVersionArn'], top['LayerVersionArn']]
    said = json.loads(fn.invoke(FunctionName='layered')['Payload'].read())
    assert said == ['top', ['bin', 'data.txt', 'python'], 'low']
    fn.update_function_configuration(FunctionName='layered', Layers=[low['LayerVersionArn']])
    assert json.loads(fn.invoke(FunctionName='layered')['Payload'].read())[0] == 'low'
    fn.delete_layer_version(LayerName='low', VersionNumber=1)                    # functions keep what they have
    fn.update_function_configuration(FunctionName='layered', Timeout=9)
    assert json.loads(fn.invoke(FunctionName='layered')['Payload'].read())[0] == 'low'
    fn.update_function_configuration(FunctionName='layered', Layers=[])
    assert fn.invoke(FunctionName='layered')['FunctionError'] == 'Unhandled'


def test_versions_of_layers(fn):
    arns = [layer(fn, 'many', {'a.txt': str(n)})['LayerVersionArn'] for n in range(3)]
    assert [a.rsplit(':', 1)[1] for a in arns] == ['1', '2', '3']
    pages = fn.get_paginator('list_layer_versions').paginate(LayerName='many', PaginationConfig={'PageSize': 2})
    assert [v['Version'] for p in pages for v in p['LayerVersions']] == [3, 2, 1]
    assert fn.get_layer_version(LayerName='many', VersionNumber=2)['Description'] == 'of many'
    assert fn.get_layer_version_by_arn(Arn=arns[0])['Version'] == 1
    assert any(l['LayerName'] == 'many' and l['LatestMatchingVersion']['Version'] == 3 for l in fn.list_layers()['Layers'])
    assert not any(l['LayerName'] == 'many' for l in fn.list_layers(CompatibleRuntime='nodejs20.x')['Layers'])
    fn.delete_layer_version(LayerName='many', VersionNumber=3)
    refused('ResourceNotFoundException', 404, fn.get_layer_version, LayerName='many', VersionNumber=3)
    assert layer(fn, 'many', {'a.txt': 'x'})['Version'] == 4                      # a number is never given twice


def test_bad_layers(fn):
    refused('InvalidParameterValueException', 400, fn.publish_layer_version, LayerName='bad', Content={'ZipFile': b'no zip'})
    refused('InvalidParameterValueException', 400, create, fn, Layers=['arn:aws:lambda:us-east-1:000000000000:layer:never:1'])
    refused('ValidationException', 400, create, fn, Layers=['never'])
    refused('InvalidParameterValueException', 400, create, fn, Layers=['arn:aws:lambda:us-east-1:000000000000:layer:never:1'] * 6)
