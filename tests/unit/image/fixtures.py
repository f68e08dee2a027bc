#!/usr/bin/env python3
"""Archives and a small real registry for the image tests.

fixtures.py make DIR            writes rootfs.tar, oci.tar, oci/ , docker.tar and hostile archives
fixtures.py serve DIR PORTFILE  serves DIR/oci as a registry (token and basic auth, an index with
                                several machines, a flaky and a lying repository); the port it
                                listens on is written to PORTFILE
"""
import base64, gzip, hashlib, http.server, io, json, os, ssl, subprocess, sys, tarfile, threading, urllib.parse


def sha(b):
    return "sha256:" + hashlib.sha256(b).hexdigest()


def tar(entries):
    """entries: (name, kind, content, extra)"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for name, kind, content, extra in entries:
            i = tarfile.TarInfo(name)
            i.mtime = 1700000000
            i.mode = extra.get("mode", 0o755 if kind == "d" else 0o644)
            i.uid, i.gid = extra.get("uid", 0), extra.get("gid", 0)
            i.pax_headers = extra.get("pax", {})
            if kind == "d":
                i.type = tarfile.DIRTYPE
            elif kind == "l":
                i.type, i.linkname = tarfile.SYMTYPE, content
            elif kind == "h":
                i.type, i.linkname = tarfile.LNKTYPE, content
            elif kind == "c":
                i.type, i.devmajor, i.devminor = tarfile.CHRTYPE, 1, 3
            elif kind == "p":
                i.type = tarfile.FIFOTYPE
            data = content.encode() if kind == "f" else b""
            i.size = len(data)
            t.addfile(i, io.BytesIO(data))
    return out.getvalue()


BASE = [
    ("./", "d", "", {}), ("./etc", "d", "", {}), ("./usr/bin", "d", "", {}), ("./bin", "l", "usr/bin", {}),
    ("./etc/passwd", "f", "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/srv/www:/bin/sh\n", {}),
    ("./etc/group", "f", "root:x:0:\nwww:x:34:\nmedia:x:44:www,root\nadm:x:45:other\n", {}),
    ("./usr/bin/tool", "f", "#!/bin/sh\n", {"mode": 0o4755, "uid": 33, "gid": 34}),
    ("./usr/bin/again", "h", "./usr/bin/tool", {}),
    ("./bin/through", "f", "by the link", {}),
    ("./etc/old", "f", "to be deleted", {}), ("./var/cache/a", "f", "hidden by opaque", {}),
    ("./dev/null", "c", "", {}), ("./run/pipe", "p", "", {"mode": 0o666}),
    ("./etc/attr", "f", "x", {"pax": {"SCHILY.xattr.user.color": "blue",
                                      "SCHILY.xattr.trusted.overlay.redirect": "/etc"}}),
]
TOP = [
    ("etc/.wh.old", "f", "", {}), ("var/cache", "d", "", {"mode": 0o700}), ("var/cache/.wh..wh..opq", "f", "", {}),
    ("var/cache/b", "f", "new", {}), ("etc/motd", "f", "hello", {}), (".wh..wh.plnk", "d", "", {}),
]
CONFIG = {"Entrypoint": ["/bin/tool"], "Cmd": ["-v"], "Env": ["PATH=/usr/bin", "A=b"], "WorkingDir": "/srv",
          "User": "www", "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT"}
HOSTILE = {
    "dotdot": [("a/../../../evil", "f", "x", {})],
    "linkout": [("etc", "l", "/etc", {}), ("etc/tandem-evil", "f", "x", {})],  # stays inside: not refused
    "linkup": [("up", "l", "../../..", {}), ("up/tandem-evil", "f", "x", {})],
    "hardout": [("x", "h", "../../../etc/passwd", {})],
    "hardabs": [("x", "h", "/etc/hostname-of-nobody", {})],
    "whiteout": [("a/.wh...", "f", "", {})],
}


def zstd(b):
    return subprocess.run(["zstd", "-qc"], input=b, stdout=subprocess.PIPE, check=True).stdout


def layout(layers, config, arch="amd64", media="oci", packed=None):
    """blobs {digest: bytes}, manifest digest, manifest bytes"""
    blobs, ids, descs = {}, [], []
    for plain in layers:
        z = packed(plain) if packed else gzip.compress(plain, 6, mtime=0)
        blobs[sha(z)] = z
        ids.append(sha(plain))
        descs.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd" if packed else
                      "application/vnd.oci.image.layer.v1.tar+gzip" if media == "oci" else
                      "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": sha(z), "size": len(z)})
    c = json.dumps({"architecture": arch, "os": "linux", "created": "2024-05-01T00:00:00Z", "config": config,
                    "rootfs": {"type": "layers", "diff_ids": ids}}).encode()
    blobs[sha(c)] = c
    m = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json" if media == "oci" else
                    "application/vnd.docker.distribution.manifest.v2+json",
                    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha(c), "size": len(c)},
                    "layers": descs}).encode()
    blobs[sha(m)] = m
    return blobs, sha(m), m


def make(d):
    os.makedirs(d, exist_ok=True)
    base, top = tar(BASE), tar(TOP)
    put = lambda name, data: open(os.path.join(d, name), "wb").write(data)
    put("rootfs.tar", base)
    put("rootfs.tar.gz", gzip.compress(base, mtime=0))
    for name, entries in HOSTILE.items():
        put("hostile-%s.tar" % name, tar(entries))
    put("hostile-cut.tar.gz", gzip.compress(base, mtime=0)[:300])
    put("hostile-text.tar", b"this is no archive\n" * 100)
    put("hostile-empty.tar", b"")

    blobs, digest, m = layout([base, top], CONFIG)
    arm, arm_digest, arm_m = layout([tar([("arm", "f", "", {})])], {}, "arm64")
    blobs.update(arm)
    many = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"digest": arm_digest, "size": len(arm_m), "platform": {"os": "linux", "architecture": "arm64"}},
        {"digest": digest, "size": len(m), "platform": {"os": "linux", "architecture": "amd64"}}]}).encode()
    blobs[sha(many)] = many
    docker, docker_digest, _ = layout([base, top], CONFIG, media="docker")
    blobs.update(docker)
    zst, zst_digest, _ = layout([base, top], CONFIG, packed=zstd)
    blobs.update(zst)
    os.makedirs(os.path.join(d, "oci/blobs/sha256"), exist_ok=True)
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": sha(many), "size": len(many),
         "annotations": {"org.opencontainers.image.ref.name": "v1"}}]}).encode()}
    for k, v in blobs.items():
        files["blobs/sha256/" + k[7:]] = v
    for k, v in files.items():
        put("oci/" + k, v)
    with tarfile.open(os.path.join(d, "oci.tar"), "w") as t:
        t.add(os.path.join(d, "oci"), ".")
    put("tags.json", json.dumps({"one": digest, "many": sha(many), "docker": docker_digest, "zstd": zst_digest, "lying": digest}).encode())

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        def add(name, data):
            i = tarfile.TarInfo(name)
            i.size = len(data)
            t.addfile(i, io.BytesIO(data))
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": CONFIG,
                             "rootfs": {"type": "layers", "diff_ids": [sha(base), sha(top)]}}).encode()
        add(sha(config)[7:] + ".json", config)
        add("a" * 64 + "/layer.tar", base)
        add("b" * 64 + "/layer.tar", top)
        add("manifest.json", json.dumps([{"Config": sha(config)[7:] + ".json", "RepoTags": ["demo/app:1.0", "demo/app:latest"],
                                          "Layers": ["a" * 64 + "/layer.tar", "b" * 64 + "/layer.tar"]}]).encode())
    put("docker.tar", out.getvalue())


class Registry(http.server.BaseHTTPRequestHandler):
    secure_port = 0
    protocol_version = "HTTP/1.1"
    failed = set()
    lock = threading.Lock()
    log = []

    def log_message(self, *a):
        pass

    def answer(self, code, body=b"", headers={}):
        self.send_response(code)
        for k, v in headers.items():
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        host = self.headers["Host"]
        auth = self.headers.get("Authorization", "")
        if url.path == "/count":
            return self.answer(200, json.dumps(self.log).encode())
        if url.path == "/token":
            q = urllib.parse.parse_qs(url.query)
            if "private" in q["scope"][0] and auth != "Basic " + base64.b64encode(b"me:secret").decode():
                return self.answer(401, b'{"errors":[{"message":"who are you"}]}')
            return self.answer(200, json.dumps({"token": "T:" + q["scope"][0]}).encode())
        part = url.path.split("/")
        if len(part) < 5 or part[1] != "v2":
            return self.answer(404)
        repo, kind, ref = "/".join(part[2:-2]), part[-2], part[-1]
        if repo == "t/basic":
            if auth != "Basic " + base64.b64encode(b"me:secret").decode():
                return self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
        elif auth != "Bearer T:repository:%s:pull" % repo:
            return self.answer(401, b"", {"WWW-Authenticate":
                'Bearer realm="%s://%s/token",service="test",scope="repository:%s:pull"' % (
                    "https" if host.endswith(":%d" % self.secure_port) else "http", host, repo)})
        with self.lock:
            self.log.append(self.path)
            first = self.path not in self.failed
            self.failed.add(self.path)
        if kind == "manifests" and ref in self.tags:
            ref = self.tags[ref]
        path = os.path.join(self.dir, "oci/blobs/sha256", ref[7:])
        if repo.startswith("none") or not os.path.isfile(path):
            return self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        data = open(path, "rb").read()
        if repo == "t/flaky" and first:
            if kind == "manifests":
                return self.answer(503, b"", {"Retry-After": "0"})
            self.send_response(200)  # cuts off in the middle; the next one may resume
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:len(data) // 2])
            self.close_connection = True
            return
        if repo == "t/lying" and kind == "blobs" and len(data) > 300:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = 0
        if self.headers.get("Range"):
            start = int(self.headers["Range"].split("=")[1].split("-")[0])
        if start:
            return self.answer(206, data[start:], {"Content-Range": "bytes %d-%d/%d" % (start, len(data) - 1, len(data))})
        self.answer(200, data, {"Content-Type": json.loads(data).get("mediaType", "") if kind == "manifests" else "application/octet-stream"})


def serve(d, portfile):
    Registry.dir = d
    Registry.tags = json.load(open(os.path.join(d, "tags.json")))
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", d + "/key.pem", "-out", d + "/ca.pem"], check=True, stderr=subprocess.DEVNULL)
    secure = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(d + "/ca.pem", d + "/key.pem")
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    Registry.secure_port = secure.server_port
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    with open(portfile + ".tmp", "w") as f:
        f.write("%d %d" % (s.server_port, secure.server_port))
    os.rename(portfile + ".tmp", portfile)
    s.serve_forever()


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    serve(sys.argv[2], sys.argv[3])
