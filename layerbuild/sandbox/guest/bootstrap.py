"""Starts Lambda's runtime client as its images do: their search path, their .pth files, then the handler.

It lies at /var/runtime, beside the client, which is AWS's own (awslambdaric). `imports.py` shares its search path.
"""

import os
import site
import sys

RUNTIME = "/var/runtime"


def set_search_path():
    """What the images' own bootstrap does: the function, the layers, the runtime; and .pth files of the first two."""
    root = os.environ.get("LAYERBUILD_ROOT", "")
    task = os.environ["LAMBDA_TASK_ROOT"]
    python = "python{}.{}".format(*sys.version_info)
    layers = [root + "/opt/python/lib/" + python + "/site-packages", root + "/opt/python"]
    runtime = os.environ["LAMBDA_RUNTIME_DIR"]
    # Without a root of its own, an interpreter has packages that Lambda has not.
    own = [path for path in sys.path if path not in ("", runtime) and not (root and path.endswith("-packages"))]
    # PYTHONPATH is Lambda's; a function that sets one of its own loses the layers.
    given = os.environ.get("PYTHONPATH", "")
    if given != runtime:
        wanted = given.split(os.pathsep)
        sys.path[:] = [task, runtime, *own]
        layers = [path for path in layers if path in wanted]
    else:
        sites = [path for path in own if path.endswith("-packages")]
        rest = [path for path in own if path not in sites]
        late = sys.version_info < (3, 11)
        sys.path[:] = [task, *layers, *([] if late else sites), runtime, *rest, *(sites if late else [])]
    for folder in (task, *layers):
        site.addsitedir(folder)


def main():
    set_search_path()
    from awslambdaric import bootstrap
    from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

    handler = os.environ["_HANDLER"]
    address = os.environ["AWS_LAMBDA_RUNTIME_API"]
    try:
        client = LambdaRuntimeClient(address)
    except TypeError:
        client = None
    if client is None or bootstrap.run.__code__.co_argcount > 2:  # before 4.0
        bootstrap.run(os.environ["LAMBDA_TASK_ROOT"], handler, address)
    else:
        bootstrap.run(handler, client)


if __name__ == "__main__":
    main()
