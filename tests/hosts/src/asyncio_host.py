"""asyncio as a host of evbase: runs one scenario.

    python3 asyncio_host.py LIBRARY SCENARIO
"""

import asyncio
import ctypes
import sys

library = ctypes.CDLL(sys.argv[1])
loop = asyncio.new_event_loop()


async def serve_for(fd, seconds):
    """Turns whenever the descriptor is readable, and at no other time. Returns how often."""
    turns = 0
    done = loop.create_future()

    def readable():
        nonlocal turns
        turns += 1
        if library.evbase_turn() and not done.done():
            done.set_result(None)

    loop.add_reader(fd, readable)
    try:
        await asyncio.wait([done], timeout=seconds)
    finally:
        loop.remove_reader(fd)
    return turns


@ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int, ctypes.c_uint64)
def serve(fd, milliseconds):
    return loop.run_until_complete(serve_for(fd, milliseconds / 1000))


sys.exit(library.evbase_scenario(sys.argv[2].encode(), serve) != 1)
