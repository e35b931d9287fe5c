"""Fakes of the services that behave: state, errors and faults as the contracts have them.

    fake = FakeStaff()
    client = StaffClient.from_config(fake.config(), session=fake.session())   # no socket
    with fake.serve() as url:                                                 # over HTTP
        ...
    fake.faults.on("persons.list", reset="after-apply")
    fake.calls.of("persons.list")[-1].query

    FakeBlackbox …   one class for each service; Accounts: what three of them share
    YandexFakes      all of them, each made when it is first asked for
    FakeService, route, FakeRequest, File, Reply, Refusal
                     what a fake is written with
    Call, Calls, Faults
                     what is asked of a fake, and what is done to it
    Sample, sample, samples, check_shape
                     hand-written answers, against which clients and fakes are both held

No pytest here: for fixtures see `sepelib.yandex.pytest_plugin`. Names load at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._accounts import Accounts as Accounts
    from ._alemate import FakeAlemate as FakeAlemate
    from ._auth_qe import FakeAuthQe as FakeAuthQe
    from ._blackbox import FakeBlackbox as FakeBlackbox
    from ._calls import Call as Call
    from ._calls import Calls as Calls
    from ._center_robot import FakeCenterRobot as FakeCenterRobot
    from ._clustermaster import FakeClustermaster as FakeClustermaster
    from ._cms import FakeCms as FakeCms
    from ._fakes import YandexFakes as YandexFakes
    from ._faults import Faults as Faults
    from ._gencfg import FakeGencfg as FakeGencfg
    from ._golden import Sample as Sample
    from ._golden import check_shape as check_shape
    from ._golden import sample as sample
    from ._golden import samples as samples
    from ._iss import FakeIss as FakeIss
    from ._its import FakeIts as FakeIts
    from ._nanny import FakeNanny as FakeNanny
    from ._oauth import FakeOAuth as FakeOAuth
    from ._otrs import FakeOtrs as FakeOtrs
    from ._passport import FakePassport as FakePassport
    from ._request import FakeRequest as FakeRequest
    from ._request import File as File
    from ._request import Refusal as Refusal
    from ._request import Reply as Reply
    from ._routes import Route as Route
    from ._routes import route as route
    from ._sandbox import FakeSandbox as FakeSandbox
    from ._service import EPOCH as EPOCH
    from ._service import FakeService as FakeService
    from ._shardtracker import FakeShardtracker as FakeShardtracker
    from ._staff import FakeStaff as FakeStaff
    from ._startrek import FakeStartrek as FakeStartrek
    from ._timeline import FakeTimeline as FakeTimeline
    from ._tvm import FakeTvmTool as FakeTvmTool
else:
    _HOME = {
        "Accounts": "_accounts",
        "Call": "_calls",
        "Calls": "_calls",
        "EPOCH": "_service",
        "FakeAlemate": "_alemate",
        "FakeAuthQe": "_auth_qe",
        "FakeBlackbox": "_blackbox",
        "FakeCenterRobot": "_center_robot",
        "FakeClustermaster": "_clustermaster",
        "FakeCms": "_cms",
        "FakeGencfg": "_gencfg",
        "FakeIss": "_iss",
        "FakeIts": "_its",
        "FakeNanny": "_nanny",
        "FakeOAuth": "_oauth",
        "FakeOtrs": "_otrs",
        "FakePassport": "_passport",
        "FakeRequest": "_request",
        "FakeSandbox": "_sandbox",
        "FakeService": "_service",
        "FakeShardtracker": "_shardtracker",
        "FakeStaff": "_staff",
        "FakeStartrek": "_startrek",
        "FakeTimeline": "_timeline",
        "FakeTvmTool": "_tvm",
        "Faults": "_faults",
        "File": "_request",
        "Refusal": "_request",
        "Reply": "_request",
        "Route": "_routes",
        "Sample": "_golden",
        "YandexFakes": "_fakes",
        "check_shape": "_golden",
        "route": "_routes",
        "sample": "_golden",
        "samples": "_golden",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)


__all__ = [
    "EPOCH",
    "Accounts",
    "Call",
    "Calls",
    "FakeAlemate",
    "FakeAuthQe",
    "FakeBlackbox",
    "FakeCenterRobot",
    "FakeClustermaster",
    "FakeCms",
    "FakeGencfg",
    "FakeIss",
    "FakeIts",
    "FakeNanny",
    "FakeOAuth",
    "FakeOtrs",
    "FakePassport",
    "FakeRequest",
    "FakeSandbox",
    "FakeService",
    "FakeShardtracker",
    "FakeStaff",
    "FakeStartrek",
    "FakeTimeline",
    "FakeTvmTool",
    "Faults",
    "File",
    "Refusal",
    "Reply",
    "Route",
    "Sample",
    "YandexFakes",
    "check_shape",
    "route",
    "sample",
    "samples",
]
