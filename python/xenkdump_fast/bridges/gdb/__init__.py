"""A server for gdb's remote serial protocol: a domain of a dump as a stopped machine.

Threads are the vCPUs, and on demand every task. Nothing can be written or continued.

    packets.py    packets in a stream of bytes
    registers.py  gdb's registers, and the target descriptions that list them
    threads.py    the threads, and the registers of each
    memory.py     kernel memory, and user memory of the selected thread
    session.py    the answer to each packet
    monitor.py    gdb's command ``monitor``
    server.py     a session over a pipe or over a port of the loopback interface
"""
