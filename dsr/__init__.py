"""dsr: deep downscaling of weather forecasts, with strong scaling that is exact to the bit.

The Python interface; the command line calls the same functions.

- `open_store(path)`: a store as an xarray DataTree
- `prepare(...)`: archives -> a store; `simulate(path, ...)`: the built-in physical model -> a store
- `plan(...)`: the derived numbers of every mode; `launch(...)`: train, in processes apart, to a `Run`
- `Run(path)`: a run's status, metrics, evaluation and report
- `load(path)`: a run's network as a function from a low-resolution xarray Dataset to a high-resolution one

Importing dsr imports no library; each of these does when it is first used.
"""

from importlib import import_module

from dsr import proj  # noqa: F401  (before anything that loads pyproj)

TYPE_CHECKING = False  # as in typing, whose import would take most of the time
if TYPE_CHECKING:
    from dsr.data.prepare import prepare_from_options as prepare
    from dsr.data.simulate import simulate
    from dsr.data.store import open as open_store
    from dsr.interface import Run, launch, plan
    from dsr.predict import downscaler as load

__version__ = "0.2.0.dev0"
__all__ = ["Run", "launch", "load", "open_store", "plan", "prepare", "simulate"]

_PLACES = {
    "open_store": "dsr.data.store:open",
    "prepare": "dsr.data.prepare:prepare_from_options",
    "simulate": "dsr.data.simulate:simulate",
    "plan": "dsr.interface:plan",
    "launch": "dsr.interface:launch",
    "Run": "dsr.interface:Run",
    "load": "dsr.predict:downscaler",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'dsr' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
