"""The gallery's web page: shows what lies on the shared volume under /pictures.

pictures/NAME.jpg came through the S3 door, thumbs/NAME.jpg and thumbs/NAME.json were written by the function
that the put fired. The page only reads files: no API, no cache, so it shows what is there at this moment.
"""
import html, http.server, json, os, socket, sys, urllib.parse

ROOT = os.environ.get('PICTURES', '/pictures')
POD = os.environ.get('POD', socket.gethostname())

PAGE = '''<!doctype html><meta charset="utf-8"><title>gallery</title>
<style>body{{font:16px system-ui;margin:2em;background:#fafafa}}figure{{display:inline-block;margin:.5em;padding:.5em;background:#fff;
box-shadow:0 1px 4px #0003}}figcaption{{font-size:.8em;color:#555}}</style>
<h1>gallery</h1><p>{n} pictures, served by {pod}</p>
{figures}'''


def figures():
    thumbs = os.path.join(ROOT, 'thumbs')
    names = sorted(n for n in os.listdir(thumbs) if n.endswith('.jpg')) if os.path.isdir(thumbs) else []
    for name in names:
        try:
            with open(os.path.join(thumbs, name[:-4] + '.json'), encoding='utf-8') as f:
                told = json.load(f)
        except (OSError, ValueError):
            told = {}
        text = 'started in {start_ms} ms ({how}), took {duration_ms} ms'.format(
            start_ms=told.get('start_ms', '?'), how='cold' if told.get('cold') else 'warm', duration_ms=told.get('duration_ms', '?'))
        yield '<figure><a href="/pictures/{0}"><img src="/thumbs/{0}" alt="{1}"></a><figcaption>{1}<br>{2}</figcaption></figure>'.format(
            urllib.parse.quote(name), html.escape(name), html.escape(text))


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = urllib.parse.unquote(self.path.partition('?')[0])
        folder, _, name = path.strip('/').partition('/')
        if path == '/healthz':
            self.answer(200, 'text/plain', b'ok\n')
        elif path == '/':
            shown = list(figures())
            self.answer(200, 'text/html; charset=utf-8', PAGE.format(n=len(shown), pod=html.escape(POD), figures='\n'.join(shown)).encode())
        elif folder in ('pictures', 'thumbs') and name and '/' not in name and name.endswith('.jpg'):
            try:
                with open(os.path.join(ROOT, folder, name), 'rb') as f:
                    self.answer(200, 'image/jpeg', f.read())
            except OSError:
                self.answer(404, 'text/plain', b'no such picture\n')
        else:
            self.answer(404, 'text/plain', b'not here\n')

    def log_message(self, form, *args):
        print(self.address_string(), form % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


if __name__ == '__main__':
    server = Server(('', int(os.environ.get('PORT', '8000'))), Page)
    print('listening on', server.server_address, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
