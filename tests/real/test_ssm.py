"""Parameters of SSM through an unmodified boto3 and the AWS CLI."""
import json

import pytest

from test_lambda import refused
from test_logs import aws


@pytest.fixture(scope='module')
def ssm(tandem):
    return tandem.boto('ssm')


def test_put_get_versions_labels(ssm):
    assert ssm.put_parameter(Name='/cdk-bootstrap/hnb659fds/version', Value='21', Type='String')['Version'] == 1
    refused('ParameterAlreadyExists', 400, ssm.put_parameter, Name='/cdk-bootstrap/hnb659fds/version', Value='22', Type='String')
    assert ssm.put_parameter(Name='/cdk-bootstrap/hnb659fds/version', Value='22', Overwrite=True)['Version'] == 2
    got = ssm.get_parameter(Name='/cdk-bootstrap/hnb659fds/version')['Parameter']
    assert (got['Value'], got['Version'], got['Type']) == ('22', 2, 'String')
    assert got['ARN'] == 'arn:aws:ssm:us-east-1:000000000000:parameter/cdk-bootstrap/hnb659fds/version'
    assert ssm.get_parameter(Name=got['ARN'])['Parameter']['Value'] == '22'
    assert ssm.get_parameter(Name='/cdk-bootstrap/hnb659fds/version:1')['Parameter']['Value'] == '21'
    ssm.label_parameter_version(Name='/cdk-bootstrap/hnb659fds/version', ParameterVersion=1, Labels=['old'])
    assert ssm.get_parameter(Name='/cdk-bootstrap/hnb659fds/version:old')['Parameter']['Version'] == 1
    ssm.label_parameter_version(Name='/cdk-bootstrap/hnb659fds/version', Labels=['old'])                 # it moves
    assert ssm.get_parameter(Name='/cdk-bootstrap/hnb659fds/version:old')['Parameter']['Version'] == 2
    history = ssm.get_parameter_history(Name='/cdk-bootstrap/hnb659fds/version')['Parameters']
    assert [(h['Version'], h['Value'], h['Labels']) for h in history] == [(1, '21', []), (2, '22', ['old'])]
    refused('ParameterNotFound', 400, ssm.get_parameter, Name='/nobody')
    refused('ParameterVersionNotFound', 400, ssm.get_parameter, Name='/cdk-bootstrap/hnb659fds/version:9')
    several = ssm.get_parameters(Names=['/cdk-bootstrap/hnb659fds/version', '/nobody'])
    assert [p['Value'] for p in several['Parameters']] == ['22'] and several['InvalidParameters'] == ['/nobody']


def test_secure_strings_are_sealed(tandem, ssm):
    ssm.put_parameter(Name='/app/secret', Value='tell nobody', Type='SecureString')
    assert ssm.get_parameter(Name='/app/secret', WithDecryption=True)['Parameter']['Value'] == 'tell nobody'
    assert 'tell nobody' not in ssm.get_parameter(Name='/app/secret')['Parameter']['Value']
    kept = tandem.kubectl('get', 'parameters', '-o', 'json').stdout
    assert '/app/secret' in kept and 'tell nobody' not in kept


def test_paths_and_lists(ssm):
    for n in range(12):
        ssm.put_parameter(Name=f'/tree/a/p{n:02}', Value=str(n), Type='String', Tags=[{'Key': 'part', 'Value': 'a' if n < 3 else 'b'}])
    ssm.put_parameter(Name='/tree/top', Value='x,y', Type='StringList')
    assert [p['Name'] for p in ssm.get_parameters_by_path(Path='/tree')['Parameters']] == ['/tree/top']
    pages = list(ssm.get_paginator('get_parameters_by_path').paginate(Path='/tree', Recursive=True))
    assert len([p for page in pages for p in page['Parameters']]) == 13 and len(pages) == 2
    listed = ssm.describe_parameters(ParameterFilters=[{'Key': 'Name', 'Option': 'BeginsWith', 'Values': ['/tree/a/p0']}])['Parameters']
    assert len(listed) == 10 and 'Value' not in listed[0]
    assert len(ssm.describe_parameters(ParameterFilters=[{'Key': 'tag:part', 'Values': ['a']}])['Parameters']) == 3
    assert ssm.list_tags_for_resource(ResourceType='Parameter', ResourceId='/tree/a/p00')['TagList'] == [{'Key': 'part', 'Value': 'a'}]
    ssm.add_tags_to_resource(ResourceType='Parameter', ResourceId='/tree/a/p00', Tags=[{'Key': 'x', 'Value': 'y'}])
    ssm.remove_tags_from_resource(ResourceType='Parameter', ResourceId='/tree/a/p00', TagKeys=['part'])
    assert ssm.list_tags_for_resource(ResourceType='Parameter', ResourceId='/tree/a/p00')['TagList'] == [{'Key': 'x', 'Value': 'y'}]
    gone = ssm.delete_parameters(Names=['/tree/a/p00', '/nobody'])
    assert gone['DeletedParameters'] == ['/tree/a/p00'] and gone['InvalidParameters'] == ['/nobody']
    ssm.delete_parameter(Name='/tree/top')
    refused('ParameterNotFound', 400, ssm.delete_parameter, Name='/tree/top')


def test_what_a_parameter_may_be(ssm):
    refused('ValidationException', 400, ssm.put_parameter, Name='a b', Value='x', Type='String')
    refused('ValidationException', 400, ssm.put_parameter, Name='ssm-x', Value='x', Type='String')
    refused('AccessDeniedException', 400, ssm.put_parameter, Name='/aws/x', Value='x', Type='String')
    refused('ValidationException', 400, ssm.put_parameter, Name='typeless', Value='x')
    refused('ValidationException', 400, ssm.put_parameter, Name='long', Value='x' * 4097, Type='String')
    assert ssm.put_parameter(Name='long', Value='x' * 8192, Type='String', Tier='Advanced')['Tier'] == 'Advanced'
    refused('ParameterPatternMismatchException', 400, ssm.put_parameter, Name='digits', Value='12x', Type='String', AllowedPattern='^[0-9]+$')
    refused('HierarchyLevelLimitExceededException', 400, ssm.put_parameter, Name='/a' * 16, Value='x', Type='String')
    refused('NotImplementedException', 501, ssm.describe_instance_information)


def test_aws_cli(tandem, ssm):
    aws(tandem, 'ssm', 'put-parameter', '--name', 'by-cli', '--value', 'v', '--type', 'String')
    assert json.loads(aws(tandem, 'ssm', 'get-parameter', '--name', 'by-cli').stdout)['Parameter']['Value'] == 'v'
    assert ssm.get_parameter(Name='by-cli')['Parameter']['ARN'].endswith(':parameter/by-cli')
