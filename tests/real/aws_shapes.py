"""Is an AWS answer what the service's model says? Looks at the JSON itself, not at what botocore makes of it."""
import json


def differs(shape, value, path=''):
    """What of the value is not of that shape, as texts."""
    kind = shape.type_name
    if value is None:
        return []
    if kind == 'structure':
        if not isinstance(value, dict):
            return [f'{path}: no structure']
        named = {m.serialization.get('name', n): (n, m) for n, m in shape.members.items()}
        got = [f'{path}.{k}: no such member' for k in value if k not in named]
        got += [f'{path}.{n}: must be there' for n in shape.required_members if not shape.members[n].serialization.get('location') and n not in value]
        return got + [d for k, v in value.items() if k in named for d in differs(named[k][1], v, f'{path}.{named[k][0]}')]
    if kind == 'list':
        return [d for i, v in enumerate(value) for d in differs(shape.member, v, f'{path}[{i}]')] if isinstance(value, list) else [f'{path}: no list']
    if kind == 'map':
        return [d for k, v in value.items() for d in differs(shape.value, v, f'{path}{{{k}}}')] if isinstance(value, dict) else [f'{path}: no map']
    want = {'integer': int, 'long': int, 'double': (int, float), 'float': (int, float), 'boolean': bool, 'timestamp': (int, float, str)}.get(kind, str)
    if not isinstance(value, want) or (isinstance(value, bool) and kind != 'boolean'):
        return [f'{path}: {value!r} is no {kind}']
    if getattr(shape, 'enum', None) and value not in shape.enum and shape.name != 'Runtime':     # a host may have others
        return [f'{path}: {value!r} is none of the values']
    return []


def watch(client):
    """From now on every answer to this client is held against the model: status, members, types, values. """
    def on_answer(http_response, parsed, model, **_):
        status = http_response.status_code
        if status >= 300:
            return
        wrong = [] if status == model.http.get('responseCode', 200) or (model.output_shape and 'StatusCode' in model.output_shape.members) else [f'status {status}']
        shape = model.output_shape
        if shape is not None and not model.has_streaming_output and 'payload' not in shape.serialization:
            body = json.loads(http_response.content or b'{}')
            wrong += [d for d in differs(shape, body) if not d.endswith('StatusCode: must be there')]
        assert not wrong, (model.name, wrong)
    client.meta.events.register(f'after-call.{client.meta.service_model.service_id.hyphenize()}', on_answer)
    return client
