"""Unmodified tools that deploy through CloudFormation: SAM CLI, AWS CLI v1, CDK, Serverless. `make real-deployers` fetches and runs them."""
import json, os, subprocess, urllib.request

import pytest

from conftest import TOP

TOOLS = os.path.join(TOP, 'build', 'deployers')
BIN = {'sam': 'venv/bin/sam', 'aws': 'venv/bin/aws', 'cdk': 'node_modules/.bin/cdk', 'serverless': 'node_modules/.bin/serverless'}
HANDLER = "import os\ndef handler(event, context):\n    return 'hello ' + os.environ.get('WHO', 'nobody')\n"


@pytest.fixture
def deploy(tandem, tmp_path):
    """deploy(tool, words...): runs the tool in tmp_path as an ordinary user would, its endpoint and keys in the environment."""
    def run(tool, *words, check=True):
        program = os.path.join(TOOLS, BIN[tool])
        if not os.path.exists(program):
            pytest.skip(f'{tool} is not built: make real-deployers')
        tandem.boto('sts')
        env = {**os.environ, 'HOME': str(tmp_path), 'AWS_ENDPOINT_URL': tandem.status['aws'], 'AWS_REGION': 'us-east-1',
               'AWS_DEFAULT_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': tandem.key['AccessKeyId'],
               'AWS_SECRET_ACCESS_KEY': tandem.key['SecretAccessKey'], 'AWS_EC2_METADATA_DISABLED': 'true', 'SAM_CLI_TELEMETRY': '0',
               'CDK_DISABLE_VERSION_CHECK': '1', 'SLS_TELEMETRY_DISABLED': '1', 'SLS_NOTIFICATIONS_MODE': 'off', 'CI': '1',
               'NODE_PATH': os.path.join(TOOLS, 'node_modules'), 'CDK_DEFAULT_ACCOUNT': '000000000000', 'CDK_DEFAULT_REGION': 'us-east-1'}
        done = subprocess.run([program, *words], cwd=tmp_path, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=110)
        if check and done.returncode:
            raise AssertionError(f'{tool} {" ".join(words)}: exit {done.returncode}: {done.stdout[-4000:]}')
        return done.stdout
    return run


def outputs(tandem, stack):
    shown = tandem.boto('cloudformation').describe_stacks(StackName=stack)['Stacks'][0]
    return {o['OutputKey']: o['OutputValue'] for o in shown['Outputs']}


def invoked(tandem, name):
    return json.load(tandem.boto('lambda').invoke(FunctionName=name)['Payload'])


def gone(tandem, stack):
    return stack not in [s['StackName'] for s in tandem.boto('cloudformation').describe_stacks()['Stacks']]


SAM = '''
AWSTemplateFormatVersion: '2010-09-09'
Transform: AWS::Serverless-2016-10-31
Globals:
  Function: {Timeout: 10, Runtime: python3.11, Handler: app.handler, Environment: {Variables: {WHO: sam}}}
Resources:
  Hello:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src/
      AutoPublishAlias: live
      Policies: [{S3ReadPolicy: {BucketName: somewhere}}, AWSLambdaBasicExecutionRole]
      Events: {Put: {Type: S3, Properties: {Bucket: !Ref Things, Events: 's3:ObjectCreated:*'}}}
  Page:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: src/, FunctionUrlConfig: {AuthType: NONE}}
  Things: {Type: AWS::S3::Bucket}
Outputs:
  Name: {Value: !Ref Hello}
  Alias: {Value: !Ref Hello.Alias}
  Url: {Value: !GetAtt PageUrl.FunctionUrl}
'''


def test_sam_deploys_changes_and_deletes(tandem, deploy, tmp_path):
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src' / 'app.py').write_text(HANDLER)
    (tmp_path / 'template.yaml').write_text(SAM)
    words = ('--stack-name', 'by-sam', '--resolve-s3', '--capabilities', 'CAPABILITY_IAM', '--no-confirm-changeset')
    deploy('sam', 'deploy', *words)
    out = outputs(tandem, 'by-sam')
    assert invoked(tandem, out['Name']) == 'hello sam' and out['Alias'].endswith(':live')
    assert urllib.request.urlopen(out['Url']).read() == b'hello sam'
    assert 'No changes to deploy' in deploy('sam', 'deploy', *words, check=False)
    (tmp_path / 'template.yaml').write_text(SAM.replace('WHO: sam', 'WHO: you'))
    deploy('sam', 'deploy', *words)
    assert invoked(tandem, out['Name']) == 'hello you'
    deploy('sam', 'delete', '--stack-name', 'by-sam', '--no-prompts')
    assert gone(tandem, 'by-sam')


CLI = '''
Parameters: {Who: {Type: String}}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Version: '2012-10-17', Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: 'sts:AssumeRole'}]}
      ManagedPolicyArns: ['arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole']
  Group: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: !Sub '/aws/lambda/${Hello}', RetentionInDays: 7}}
  Setting: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !Ref Who}}
  Hello:
    Type: AWS::Lambda::Function
    Properties: {Runtime: python3.11, Handler: app.handler, Role: !GetAtt Role.Arn, Code: src, Environment: {Variables: {WHO: !Ref Who}}}
Outputs: {Name: {Value: !Ref Hello}, Setting: {Value: !Ref Setting}}
'''


def test_the_aws_cli_packages_and_deploys(tandem, deploy, tmp_path):
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src' / 'app.py').write_text(HANDLER)
    (tmp_path / 'template.yaml').write_text(CLI)
    deploy('aws', 's3', 'mb', 's3://packages-of-cli')
    deploy('aws', 'cloudformation', 'package', '--template-file', 'template.yaml', '--s3-bucket', 'packages-of-cli', '--output-template-file', 'out.yaml')
    words = ('cloudformation', 'deploy', '--template-file', 'out.yaml', '--stack-name', 'by-cli', '--capabilities', 'CAPABILITY_IAM')
    deploy('aws', *words, '--parameter-overrides', 'Who=cli')
    out = outputs(tandem, 'by-cli')
    assert invoked(tandem, out['Name']) == 'hello cli'
    assert tandem.boto('ssm').get_parameter(Name=out['Setting'])['Parameter']['Value'] == 'cli'
    assert 'No changes to deploy' in deploy('aws', *words, check=False)
    deploy('aws', 'cloudformation', 'delete-stack', '--stack-name', 'by-cli')
    deploy('aws', 'cloudformation', 'wait', 'stack-delete-complete', '--stack-name', 'by-cli')
    assert gone(tandem, 'by-cli')


CDK = '''
const cdk = require('aws-cdk-lib'), lambda = require('aws-cdk-lib/aws-lambda'), s3 = require('aws-cdk-lib/aws-s3');
const app = new cdk.App();
const stack = new cdk.Stack(app, 'by-cdk', {env: {account: '000000000000', region: 'us-east-1'}});
const bucket = new s3.Bucket(stack, 'Things', {removalPolicy: cdk.RemovalPolicy.DESTROY});
const fn = new lambda.Function(stack, 'Hello', {runtime: lambda.Runtime.PYTHON_3_11, handler: 'app.handler', code: lambda.Code.fromAsset('src'),
                                                environment: {WHO: 'cdk', BUCKET: bucket.bucketName}});
bucket.grantRead(fn);
const url = fn.addFunctionUrl({authType: lambda.FunctionUrlAuthType.NONE});
new cdk.CfnOutput(stack, 'Name', {value: fn.functionName});
new cdk.CfnOutput(stack, 'Url', {value: url.url});
'''


def test_cdk_bootstraps_and_deploys(tandem, deploy, tmp_path):
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src' / 'app.py').write_text(HANDLER)
    (tmp_path / 'app.js').write_text(CDK)
    (tmp_path / 'cdk.json').write_text(json.dumps({'app': 'node app.js'}))
    deploy('cdk', 'bootstrap', 'aws://000000000000/us-east-1')
    deploy('cdk', 'deploy', '--require-approval', 'never')
    out = outputs(tandem, 'by-cdk')
    assert invoked(tandem, out['Name']) == 'hello cdk'
    assert urllib.request.urlopen(out['Url']).read() == b'hello cdk'
    deploy('cdk', 'destroy', '--force')
    assert gone(tandem, 'by-cdk')


SERVERLESS = '''
service: by-serverless
frameworkVersion: '3'
plugins: [./endpoint.js]
provider: {name: aws, runtime: python3.11, region: us-east-1, stage: dev, environment: {WHO: serverless}}
functions: {hello: {handler: app.handler, url: true}}
package: {patterns: ['!**', 'app.py']}
'''
# Version 2 of the JavaScript SDK, which Serverless 3 is built on, knows no AWS_ENDPOINT_URL.
ENDPOINT = '''
module.exports = class { constructor(serverless) {
  serverless.getProvider('aws').sdk.config.update({endpoint: process.env.AWS_ENDPOINT_URL, s3ForcePathStyle: true});
} };
'''


def test_serverless_deploys_and_removes(tandem, deploy, tmp_path):
    (tmp_path / 'app.py').write_text(HANDLER)
    (tmp_path / 'serverless.yml').write_text(SERVERLESS)
    (tmp_path / 'endpoint.js').write_text(ENDPOINT)
    deploy('serverless', 'deploy')
    assert invoked(tandem, 'by-serverless-dev-hello') == 'hello serverless'
    deploy('serverless', 'remove')
    assert gone(tandem, 'by-serverless-dev')
