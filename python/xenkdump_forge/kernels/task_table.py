"""The task tables: about ninety tasks with typical names, for each generation of hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Job:
    """A task to make. ``sleep`` names its call chain; ``state`` is the letter that ps prints."""

    pid: int
    comm: str
    sleep: str
    state: str = "S"
    cpu: int = 0
    parent: int = 2
    user: bool = False
    tgid: int = 0

    @property
    def group(self) -> int:
        """The pid of the thread group's leader."""
        return self.tgid or self.pid


def daemons(names: Sequence[tuple[str, str]], first: int, parent: int, cpus: int) -> list[Job]:
    """User processes with ascending pids and scattered CPUs."""
    pid = first
    out = []
    for i, (comm, sleep) in enumerate(names):
        out.append(Job(pid, comm, sleep, cpu=i % cpus, parent=parent, user=True))
        pid += 3 + (i * 7) % 41
    return out


_DOM0_DAEMONS = (
    *(("systemd-journal", "epoll"), ("systemd-udevd", "epoll"), ("haveged", "select")),
    *(("cron", "nanosleep"), ("dbus-daemon", "epoll"), ("systemd-logind", "epoll")),
    *(("xenstored", "poll"), ("xenconsoled", "poll"), ("qemu-system-i38", "poll")),
    *(("xl", "wait"), ("agetty", "tty"), ("agetty", "tty"), ("sshd", "select")),
    *(("sshd", "poll"), ("bash", "wait"), ("chronyd", "select"), ("chronyd", "pipe")),
    *(("dhclient", "select"), ("smartd", "signal"), ("acpid", "poll"), ("mdadm", "select")),
    *(("irqbalance", "poll"), ("lldpd", "epoll"), ("snmpd", "select"), ("master", "epoll")),
    *(("pickup", "epoll"), ("qmgr", "epoll"), ("watchdog", "nanosleep"), ("tail", "pause")),
    *(("less", "tty"), ("nc", "accept"), ("klogd", "syslog")),
)


def modern_dom0(cpus: int) -> list[Job]:
    """dom0 of a host of the 2020s."""
    jobs = [
        Job(1, "systemd", "epoll", parent=0, user=True),
        Job(2, "kthreadd", "kthreadd", parent=0, cpu=1 % cpus),
        Job(3, "rcu_gp", "rescuer", "I"),
        Job(4, "rcu_par_gp", "rescuer", "I"),
        Job(5, "slub_flushwq", "rescuer", "I"),
        Job(6, "netns", "rescuer", "I"),
        Job(8, "kworker/0:0H", "worker", "I"),
        Job(10, "mm_percpu_wq", "rescuer", "I"),
        Job(11, "rcu_tasks_kthre", "rcu_tasks", "I"),
        Job(12, "rcu_tasks_rude_", "rcu_tasks", "I", 1 % cpus),
        Job(14, "ksoftirqd/0", "smpboot"),
        Job(15, "rcu_preempt", "rcu", "I", 1 % cpus),
        Job(16, "migration/0", "smpboot"),
        Job(18, "cpuhp/0", "smpboot"),
    ]
    pid = 19
    for cpu in range(1, cpus):
        for comm, sleep, state in (
            (f"cpuhp/{cpu}", "smpboot", "S"),
            (f"migration/{cpu}", "smpboot", "S"),
            (f"ksoftirqd/{cpu}", "smpboot", "S"),
            (f"kworker/{cpu}:0", "worker", "I"),
            (f"kworker/{cpu}:0H", "worker", "I"),
        ):
            jobs.append(Job(pid, comm, sleep, state, cpu))
            pid += 1
    for comm, sleep, state in (
        *(("kdevtmpfs", "kdevtmpfs", "S"), ("inet_frag_wq", "rescuer", "I")),
        *(("kauditd", "kauditd", "S"), ("xenbus", "xenbus", "S"), ("xenwatch", "xenwatch", "S")),
        *(("khungtaskd", "khungtaskd", "S"), ("oom_reaper", "oom_reaper", "S")),
        *(("writeback", "rescuer", "I"), ("kcompactd0", "kcompactd", "S"), ("ksmd", "ksmd", "S")),
        *(("khugepaged", "khugepaged", "S"), ("kintegrityd", "rescuer", "I")),
        *(("kblockd", "rescuer", "I"), ("blkcg_punt_bio", "rescuer", "I")),
        *(("edac-poller", "rescuer", "I"), ("devfreq_wq", "rescuer", "I")),
        *(
            ("kworker/0:1H", "worker", "I"),
            ("kswapd0", "kswapd", "S"),
            ("kthrotld", "rescuer", "I"),
        ),
        *(("acpi_thermal_pm", "rescuer", "I"), ("xenbus_probe", "rescuer", "I")),
        *(("mld", "rescuer", "I"), ("ipv6_addrconf", "rescuer", "I"), ("kstrp", "rescuer", "I")),
        *(("kworker/u4:1", "worker", "I"), ("kworker/u4:2", "worker", "I")),
        *(("jbd2/xvda1-8", "journal", "S"), ("ext4-rsv-conver", "rescuer", "I")),
    ):
        jobs.append(Job(pid, comm, sleep, state, (pid * 5) % cpus))
        pid += 1
    jobs += daemons(_DOM0_DAEMONS, 211, 1, cpus)
    logger = 1290
    jobs.append(Job(logger, "rsyslogd", "select", parent=1, user=True))
    for i, name in enumerate(("in:imuxsock", "in:imklog", "rs:main Q:Reg")):
        sleep = ("poll", "syslog", "futex")[i]
        jobs.append(Job(logger + 1 + i, name, sleep, "S", i % cpus, 1, True, logger))
    jobs += [
        Job(1301, "dd", "fault", "D", 0, 1, True),
        Job(1305, "vi", "stopped", "T", 1 % cpus, 1, True),
        Job(1311, "sh", "", "Z", 0, 1, True),
        Job(1340, "do_kdump", "panic", "R", 1 % cpus, 1, True),
    ]
    return jobs


_DAEMONS_2006 = (
    *(("udevd", "select"), ("portmap", "poll"), ("rpc.statd", "select"), ("syslogd", "select")),
    *(("klogd", "syslog"), ("acpid", "poll"), ("dbus-daemon-1", "poll"), ("hald", "poll")),
    *(("hald-addon-stor", "nanosleep"), ("exim4", "select"), ("inetd", "select")),
    *(("lpd", "select"), ("sshd", "select"), ("ntpd", "select"), ("atd", "nanosleep")),
    *(("cron", "nanosleep"), ("xenstored", "select"), ("xenconsoled", "select")),
    *(("blktapctrl", "poll"), ("python", "wait"), ("rpc.mountd", "select"), ("smartd", "signal")),
    *(("apache", "select"), ("apache", "accept"), ("apache", "accept"), ("apache", "pipe")),
    *(("getty", "tty"), ("getty", "tty"), ("getty", "tty"), ("getty", "tty"), ("getty", "tty")),
    *(("login", "wait"), ("bash", "wait"), ("sshd", "recv"), ("sshd", "select"), ("bash", "tty")),
    *(("vi", "stopped"), ("tail", "pause"), ("find", "fault"), ("sh", "zombie"), ("top", "select")),
    *(("rpc.idmapd", "poll"), ("mdadm", "select"), ("dhclient", "select"), ("snmpd", "select")),
    ("xm", "recv"),
)


def dom0_2006(cpus: int) -> list[Job]:
    """dom0 of a host of June 2006: 92 tasks besides the idle ones."""
    jobs = [Job(1, "init", "select", parent=0, user=True)]
    pid = 2
    for cpu in range(cpus):
        for comm, sleep in (
            *((f"migration/{cpu}", "migration"), (f"ksoftirqd/{cpu}", "ksoftirqd")),
            (f"watchdog/{cpu}", "watchdog"),
        ):
            jobs.append(Job(pid, comm, sleep, "S", cpu, 1))
            pid += 1
    jobs += [Job(pid + cpu, f"events/{cpu}", "worker", "S", cpu, 1) for cpu in range(cpus)]
    pid += cpus
    for comm, sleep in (
        *(("khelper", "worker"), ("kthread", "worker"), ("xenwatch", "xenwatch")),
        *(("xenbus", "xenbus"), ("kblockd/0", "worker"), ("kblockd/1", "worker")),
        *(("kacpid", "worker"), ("khubd", "khubd"), ("kseriod", "kseriod")),
        *(("pdflush", "pdflush"), ("pdflush", "pdflush"), ("kswapd0", "kswapd")),
        *(("aio/0", "worker"), ("aio/1", "worker"), ("xfslogd/0", "worker")),
        *(("xfslogd/1", "worker"), ("xfsdatad/0", "worker"), ("xfsdatad/1", "worker")),
        *(("ata/0", "worker"), ("ata/1", "worker"), ("scsi_eh_0", "scsi_eh")),
        *(("scsi_eh_1", "scsi_eh"), ("kjournald", "kjournald"), ("kjournald", "kjournald")),
        *(("kpsmoused", "worker"), ("kmirrord", "worker"), ("ksnapd", "worker")),
        *(("xenfb_thread", "worker"), ("kcopyd", "worker")),
    ):
        jobs.append(Job(pid, comm, sleep, "S", pid % cpus, 1))
        pid += 3
    daemons_ = daemons(_DAEMONS_2006, 1502, 1, cpus)
    letters = {"stopped": "T", "fault": "D", "zombie": "Z"}
    jobs += [replace(job, state=letters.get(job.sleep, "S")) for job in daemons_]
    xend = 3410
    jobs.append(Job(xend, "xend", "select", parent=1, user=True))
    for i in range(6):
        sleep = ("futex", "select", "accept", "recv", "futex", "nanosleep")[i]
        jobs.append(Job(xend + 1 + i, "xend", sleep, "S", i % cpus, 1, True, xend))
    shell = jobs[-8].pid
    jobs.append(Job(3949, "do_kdump", "panic", "R", 1 % cpus, shell, True))
    return jobs


def domu(cpus: int) -> list[Job]:
    """A small guest."""
    keep = {"kthreadd", "rcu_gp", "ksoftirqd/0", "migration/0", "xenwatch", "xenbus", "kauditd"}
    jobs = [job for job in modern_dom0(cpus) if job.comm in keep]
    jobs.insert(0, Job(1, "init", "wait", parent=0, user=True))
    jobs += daemons((("sshd", "select"), ("nginx", "epoll"), ("bash", "tty")), 301, 1, cpus)
    return jobs


def leaders_first(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, sorted so that a thread follows the leader of its group."""
    return sorted(jobs, key=lambda job: (job.group, job.pid))
