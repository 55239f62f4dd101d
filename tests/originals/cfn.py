"""Runs a program of heat-cfntools in a place of its own.

cfn.py PLACE NAME ARGUMENTS...

Every absolute path that the program's source names is moved below PLACE, so that the original neither needs
root nor touches the machine. boto, which does not start on today's Python, is left out: what it would have
asked Heat for is read from PLACE/remote. Commands run as whoever we are, as upstream's own tests have it.
"""

import contextlib
import importlib.util
import json
import os
import sys
import types

place, name, *arguments = sys.argv[1:]


def moved(path):
    with open(path) as source:
        text = source.read()
    for quote, root in (("'", "/var/"), ('"', "/var/"), ("'", "/etc/"), ('"', "/bin/"), ('"', "/sbin/"),
                        ('"', "/usr/sbin/")):
        text = text.replace(quote + root, quote + place + root)
    return text


class Connection:
    def __init__(self, **_):
        pass

    def describe_stack_resource(self, *_):
        with open(os.path.join(place, "remote")) as remote:
            detail = {"StackResourceDetail": {"Metadata": json.load(remote)}}
        return {"DescribeStackResourceResponse": {"DescribeStackResourceResult": detail}}


boto = types.ModuleType("boto")
boto.cloudformation = types.SimpleNamespace(CloudFormationConnection=Connection)
sys.modules["boto"] = boto

origin = importlib.util.find_spec("heat_cfntools").submodule_search_locations[0]
for module in ("heat_cfntools", "heat_cfntools.cfntools"):
    sys.modules[module] = types.ModuleType(module)
helper = types.ModuleType("heat_cfntools.cfntools.cfn_helper")
exec(compile(moved(os.path.join(origin, "cfntools/cfn_helper.py")), "cfn_helper.py", "exec"), helper.__dict__)
helper.controlled_privileges = lambda user: contextlib.nullcontext()
sys.modules["heat_cfntools.cfntools"].cfn_helper = helper
sys.modules[helper.__name__] = helper

program = os.path.join(os.path.dirname(sys.executable), name)
sys.argv = [name, *arguments]
exec(compile(moved(program), name, "exec"), {"__name__": "__main__", "exit": sys.exit})
