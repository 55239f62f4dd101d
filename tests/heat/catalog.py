#!/usr/bin/env python3
"""Users, roles, the stack domain and the catalogue of the Keystone that tests/heat/up starts."""
import json, os
from keystoneauth1.identity import v3
from keystoneauth1 import session
from keystoneclient.v3 import client
E = os.environ
ks = client.Client(session=session.Session(auth=v3.Password(
    auth_url=E['AUTH_URL'], username='admin', password=E['ADMIN_PW'], project_name='admin',
    user_domain_id='default', project_domain_id='default')), interface='public')

def ensure(mgr, name, **kw):
    flt = {k: v for k, v in kw.items() if k == 'domain'}
    for x in mgr.list(**flt):
        if x.name == name:
            return x
    return mgr.create(name=name, **kw)

role = {n: ensure(ks.roles, n) for n in ('admin', 'member', 'heat_stack_owner', 'heat_stack_user')}
admin = [u for u in ks.users.list(domain='default') if u.name == 'admin'][0]
proj = {n: ensure(ks.projects, n, domain='default') for n in ('admin', 'service', 'demo')}
heat = ensure(ks.users, 'heat', domain='default', password=E['HEAT_PW'])
demo = ensure(ks.users, 'demo', domain='default', password=E['DEMO_PW'])
ks.roles.grant(role['admin'], user=heat, project=proj['service'])
ks.roles.grant(role['heat_stack_owner'], user=admin, project=proj['admin'])
ks.roles.grant(role['member'], user=demo, project=proj['demo'])
ks.roles.grant(role['heat_stack_owner'], user=demo, project=proj['demo'])
# the domain of the per-resource users that Heat makes ("stack domain users")
dom = ensure(ks.domains, 'heat')
dadm = ensure(ks.users, 'heat_domain_admin', domain=dom, password=E['DOMAIN_PW'])
ks.roles.grant(role['admin'], user=dadm, domain=dom)

def endpoint(stype, name, url):
    if not url:
        return
    svc = [s for s in ks.services.list() if s.type == stype]
    if url == 'none':
        for s in svc:
            ks.services.delete(s)
        return
    svc = svc[0] if svc else ks.services.create(name=name, type=stype)
    have = {}
    for e in ks.endpoints.list(service=svc):
        if e.interface in have:
            ks.endpoints.delete(e)      # exactly one per interface
        have.setdefault(e.interface, e)
    for i in ('public', 'internal', 'admin'):
        if i not in have:
            ks.endpoints.create(service=svc, url=url, interface=i, region='RegionOne')
        elif have[i].url != url:
            ks.endpoints.update(have[i], url=url)

base = 'http://%s:%s/v1' % (E['BIND'], E['HEAT_PORT'])
cfn = 'http://%s:%s/v1' % (E['BIND'], E['HEAT_CFN_PORT'])
endpoint('orchestration', 'heat', base + '/%(tenant_id)s')
endpoint('cloudformation', 'heat-cfn', cfn)
endpoint('messaging', 'zaqar', E['ZAQAR_URL'])
endpoint('object-store', 'swift', E['SWIFT_URL'])
endpoint('compute', 'nova', E['NOVA_URL'])
if E['WITH_DELETE'] == 'yes':
    endpoint('zaqar', 'zaqar-type-alias', E['ZAQAR_URL'])
    endpoint('swift', 'swift-type-alias', E['SWIFT_URL'])
else:
    endpoint('zaqar', '', 'none')
    endpoint('swift', '', 'none')

rc = '''export OS_AUTH_URL={auth}
export OS_IDENTITY_API_VERSION=3
export OS_AUTH_TYPE=password
export OS_USERNAME={user}
export OS_PASSWORD={pw}
export OS_PROJECT_NAME={proj}
export OS_PROJECT_ID={pid}
export OS_USER_DOMAIN_NAME=Default
export OS_PROJECT_DOMAIN_NAME=Default
export OS_REGION_NAME=RegionOne
export PYTHONWARNINGS=ignore
'''
os.umask(0o077)
out = {'auth_url': E['AUTH_URL'], 'region': 'RegionOne', 'heat_url': base, 'heat_cfn_url': cfn,
       'stack_user_domain_id': dom.id, 'users': {}}
for f, u, pw in (('openrc', 'admin', E['ADMIN_PW']), ('openrc-demo', 'demo', E['DEMO_PW'])):
    open(os.path.join(E['DIR'], f), 'w').write(
        rc.format(auth=E['AUTH_URL'], user=u, pw=pw, proj=u, pid=proj[u].id))
    out['users'][u] = {'password': pw, 'user_id': {'admin': admin.id, 'demo': demo.id}[u], 'project': u, 'project_id': proj[u].id,
                       'user_domain': 'Default', 'project_domain': 'Default'}
json.dump(out, open(os.path.join(E['DIR'], 'env.json'), 'w'), indent=2)
