"""Where the records of asynchronous invokes go, through an unmodified boto3."""
import json

from conftest import eventually
from test_lambda import create, fn, refused, zipped  # noqa: F401 (fn is a fixture)

WORK = 'def handler(e, c):\n    if e.get("fail"): raise ValueError("asked to")\n    return {"did": e["n"]}\n'
KEEP = 'import json, os\ndef handler(e, c):\n    open("/mnt/kept/" + e["requestContext"]["requestId"], "w").write(json.dumps(e))\n'


def arn(name):
    return f'arn:aws:lambda:us-east-1:000000000000:function:{name}'


def test_success_goes_to_a_function_and_failure_into_a_bucket(tandem, fn):
    s3 = tandem.boto('s3')
    for bucket in ('events-records', 'events-kept'):
        s3.create_bucket(Bucket=bucket)
    create(fn, 'events-keeper', code=zipped(KEEP), FileSystemConfigs=[{'Arn': 'arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/events-kept',
                                                               'LocalMountPath': '/mnt/kept'}])
    create(fn, 'events-worker', code=zipped(WORK), DeadLetterConfig={'TargetArn': 'arn:aws:s3:::events-records'})
    set_ = fn.put_function_event_invoke_config(FunctionName='events-worker', MaximumRetryAttempts=0, DestinationConfig={
        'OnSuccess': {'Destination': arn('events-keeper')}, 'OnFailure': {'Destination': 'arn:aws:s3:::events-records'}})
    assert set_['DestinationConfig'] == {'OnSuccess': {'Destination': arn('events-keeper')}, 'OnFailure': {'Destination': 'arn:aws:s3:::events-records'}}

    good = fn.invoke(FunctionName='events-worker', InvocationType='Event', Payload=json.dumps({'n': 7}))['ResponseMetadata']['RequestId']
    record = eventually(lambda: json.loads(s3.get_object(Bucket='events-kept', Key=good)['Body'].read()))      # it is there before it is whole
    assert record['requestContext']['condition'] == 'Success' and record['requestContext']['functionArn'] == arn('events-worker') + ':$LATEST'
    assert record['requestPayload'] == {'n': 7} and record['responsePayload'] == {'did': 7}
    assert record['responseContext'] == {'statusCode': 200, 'executedVersion': '$LATEST'}

    bad = fn.invoke(FunctionName='events-worker', InvocationType='Event', Payload=json.dumps({'fail': 1}))['ResponseMetadata']['RequestId']

    def told():                                                 # a folder that is made for a key is listed as long as it is empty
        keys = [o['Key'] for o in s3.list_objects_v2(Bucket='events-records').get('Contents', [])]
        return len(keys) == 2 and all(k.endswith(bad) for k in keys) and keys
    keys = eventually(told)
    letter, record = sorted((json.loads(s3.get_object(Bucket='events-records', Key=k)['Body'].read()) for k in keys), key=len)
    assert letter == {'fail': 1}                                # the dead letter is the event, and only that
    assert record['requestContext']['condition'] == 'RetriesExhausted' and record['requestContext']['approximateInvokeCount'] == 1
    assert record['responseContext']['functionError'] == 'Unhandled' and record['responsePayload']['errorMessage'] == 'asked to'


def test_per_qualifier(fn):
    create(fn, 'events-settled', code=zipped(WORK), Publish=True)
    fn.create_alias(FunctionName='events-settled', Name='live', FunctionVersion='1')
    fn.put_function_event_invoke_config(FunctionName='events-settled', Qualifier='live', MaximumRetryAttempts=1, MaximumEventAgeInSeconds=60)
    fn.update_function_event_invoke_config(FunctionName='events-settled', Qualifier='live', MaximumRetryAttempts=2)
    got = fn.get_function_event_invoke_config(FunctionName='events-settled', Qualifier='live')
    assert (got['MaximumRetryAttempts'], got['MaximumEventAgeInSeconds']) == (2, 60) and got['FunctionArn'].endswith(':live')
    refused('ResourceNotFoundException', 404, fn.get_function_event_invoke_config, FunctionName='events-settled')
    assert len(fn.list_function_event_invoke_configs(FunctionName='events-settled')['FunctionEventInvokeConfigs']) == 1
    refused('ResourceNotFoundException', 404, fn.update_function_event_invoke_config, FunctionName='events-settled', MaximumRetryAttempts=2)
    refused('NotImplementedException', 501, fn.put_function_event_invoke_config, FunctionName='events-settled',
            DestinationConfig={'OnFailure': {'Destination': 'arn:aws:sqs:us-east-1:000000000000:q'}})
    fn.delete_function_event_invoke_config(FunctionName='events-settled', Qualifier='live')
    refused('ResourceNotFoundException', 404, fn.get_function_event_invoke_config, FunctionName='events-settled', Qualifier='live')
