"""How long an update takes on N GPUs, predicted from the time of a slot and the messages of the exchange."""

from dataclasses import dataclass

from dsr.scaling.tree import cost


@dataclass(frozen=True)
class Wires:
    """What connects the GPUs. The defaults, an ordinary network, are assumed where no two ranks could be timed."""

    latency_us: float = 20.0  # of a message
    gbit_per_s: float = 10.0  # in each direction


def exchange_seconds(slots: int, gpus: int, parameters: int, wires: Wires) -> float:
    """The exchange of float32 gradients: messages x latency + bytes / bandwidth, as `tree.cost` counts them."""
    messages, sent = cost(slots, gpus, parameters)
    return messages * wires.latency_us * 1e-6 + 8 * sent / (wires.gbit_per_s * 1e9)


def update_seconds(slots: int, gpus: int, slot_seconds: float, parameters: int, wires: Wires) -> float:
    """An update on N real GPUs: slots / N times the time of a slot, and the exchange.

    Assumes that the two do not overlap, and that the GPUs are as fast as the device on which the slot was timed.
    """
    return slots / gpus * slot_seconds + exchange_seconds(slots, gpus, parameters, wires)
