"""Let pyproj keep the PROJ that it was built with, whether eccodes or pyproj is imported first.

The wheels of eccodes bring another PROJ and load it with RTLD_GLOBAL. A pyproj that is loaded later would call
functions of both, and their globals would be made and destroyed twice: no database, or a crash. With RTLD_DEEPBIND its
modules look among their own libraries first. Where dsr is installed, proj.pth does this when Python starts, for
programs that import both before dsr.
"""

import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder


class Finder:
    """Finds the extension modules of pyproj."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        if not name.startswith("pyproj."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and isinstance(spec.loader, ExtensionFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


class Loader(ExtensionFileLoader):
    """Loads an extension module whose symbols come from its own libraries before those that are loaded already."""

    def create_module(self, spec: ModuleSpec):
        flags = sys.getdlopenflags()
        sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))  # macOS needs none, and has none
        try:
            return super().create_module(spec)
        finally:
            sys.setdlopenflags(flags)


sys.meta_path.insert(0, Finder)
