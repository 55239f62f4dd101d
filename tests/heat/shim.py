#!/usr/bin/env python3
"""Fills two gaps of a Heat without a cloud around it: see tests/heat/up, section 5."""
import http.server, json, os, sys, threading, time, urllib.error, urllib.request
host, port, ks = sys.argv[1], int(sys.argv[2]), sys.argv[3]
pw = os.environ['SHIM_PASSWORD']
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
lock, cache = threading.Lock(), {'token': None, 'until': 0}

def call(url, body, headers):
    r = urllib.request.Request(url, data=body, headers=dict({'Content-Type': 'application/json'}, **headers))
    try:
        with opener.open(r, timeout=30) as a:
            return a.status, a.headers, a.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read()

def service_token():
    with lock:
        if time.time() > cache['until']:
            code, hdr, _ = call(ks + '/auth/tokens', json.dumps({'auth': {
                'identity': {'methods': ['password'], 'password': {'user': {
                    'name': 'heat', 'domain': {'id': 'default'}, 'password': pw}}},
                'scope': {'project': {'name': 'service', 'domain': {'id': 'default'}}}}}).encode(), {})
            cache.update(token=hdr.get('X-Subject-Token'), until=time.time() + 600)
        return cache['token']

class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def send(self, code, body, headers=()):
        self.send_response(code)
        self.send_header('Content-Type', 'application/json')
        for k, v in headers: self.send_header(k, v)
        self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.path != '/v3/ec2tokens':
            return self.send(404, b'{}')
        try:
            code, hdr, out = call(ks + '/ec2tokens', body, {'X-Auth-Token': service_token() or ''})
        except OSError as e:
            return self.send(503, json.dumps({'error': {'message': str(e)}}).encode())
        t = hdr.get('X-Subject-Token')
        self.send(code, out, [('X-Subject-Token', t)] if t else [])
    def do_GET(self):
        if '/servers/' in self.path:
            sid = self.path.split('/servers/')[1].split('?')[0]
            # "exists" is read from a file, so that it can be changed on the fly
            if open(os.environ['SHIM_NOVA_CODE']).read().strip() == '200':
                return self.send(200, json.dumps({'server': {'id': sid, 'name': sid, 'status': 'ACTIVE'}}).encode())
            return self.send(404, b'{"itemNotFound": {"code": 404, "message": "Instance could not be found."}}')
        v = {'id': 'v2.1', 'status': 'CURRENT', 'version': '2.90', 'min_version': '2.1',
             'links': [{'rel': 'self', 'href': 'http://%s:%d/v2.1/' % (host, port)}]}
        self.send(200, json.dumps({'version': v} if self.path.startswith('/v2.1') else {'versions': [v]}).encode())
http.server.ThreadingHTTPServer((host, port), H).serve_forever()
