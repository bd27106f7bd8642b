"""From a plan to processes: devices, launchers, checks before the start, and how a run ended. Never imports train."""
