"""A kernel with tasks that wait for locks and for other tasks, two of them for each other."""

from __future__ import annotations

from ...code.text import Frame, names
from ..task_table import Job
from ..tasks import Task
from ..view import View
from .functions import IN_MODULE, SLEEPS, Extra
from .kernel import Linux61

_KTHREAD = IN_MODULE[-2:]
_SLEEP = SLEEPS["worker"][:3]
_MUTEX = "__mutex_lock.constprop.0"
_RWSEM = "rwsem_down_write_slowpath"
_COMPLETION = "__wait_for_common"
_QUEUE = "xs_talkv"
_SEMAPHORE = "__down"

_LOCALS = 96

EXTRA = Extra(
    sleeps={
        "mutex": (*_SLEEP, *names(f"schedule_preempt_disabled {_MUTEX} blocked_fn"), *_KTHREAD),
        "rwsem": (*_SLEEP, *names(f"schedule_preempt_disabled {_RWSEM} blocked_fn"), *_KTHREAD),
        "completion": (
            *_SLEEP,
            *names(f"schedule_timeout {_COMPLETION} wait_for_completion blocked_fn"),
            *_KTHREAD,
        ),
        "xenstore": (*_SLEEP, *names(f"{_QUEUE} xs_single xenbus_read blocked_fn"), *_KTHREAD),
        "semaphore": (
            *_SLEEP,
            *names(f"schedule_timeout {_SEMAPHORE} down blocked_fn"),
            *_KTHREAD,
        ),
        "woken": (*_SLEEP, "autoremove_wake_function"),
    },
    frames={
        function: Frame(("rbx",), _LOCALS)
        for function in (_MUTEX, _RWSEM, _COMPLETION, _QUEUE, _SEMAPHORE)
    },
    types="""
struct optimistic_spin_queue { atomic_t tail; };
struct mutex { atomic_long_t owner; raw_spinlock_t wait_lock; struct optimistic_spin_queue osq;
    struct list_head wait_list; };
struct mutex_waiter { struct list_head list; struct task_struct *task; void *ww_ctx; };
struct rw_semaphore { atomic_long_t count, owner; struct optimistic_spin_queue osq;
    raw_spinlock_t wait_lock; struct list_head wait_list; };
struct rwsem_waiter { struct list_head list; struct task_struct *task; int type;
    unsigned long timeout; bool handoff_set; };
struct semaphore { raw_spinlock_t lock; unsigned int count; struct list_head wait_list; };
struct semaphore_waiter { struct list_head list; struct task_struct *task; bool up; };
struct swait_queue_head { raw_spinlock_t lock; struct list_head task_list; };
struct swait_queue { struct task_struct *task; struct list_head task_list; };
struct completion { unsigned int done; struct swait_queue_head wait; };
struct wait_queue_entry { unsigned int flags; void *private; void *func; struct list_head entry; };
struct wait_queue_head { spinlock_t lock; struct list_head head; };
struct rb_root { struct rb_node *rb_node; };
""",
    variables="""
struct mutex first_mutex;
struct mutex second_mutex;
struct rw_semaphore some_rwsem;
struct completion some_completion;
struct wait_queue_head some_queue;
struct semaphore some_semaphore;
struct rb_root some_tree;
struct hlist_head some_hlist;
""",
)

#: Two tasks that wait for each other; one that waits for the first of them; one for that one.
FIRST, SECOND, THIRD, WRITER, COMPLETES, XENSTORE, DOWN = range(1401, 1408)

JOBS = (
    Job(FIRST, "first", "mutex", "D"),
    Job(SECOND, "second", "mutex", "D", 1),
    Job(THIRD, "third", "mutex", "D"),
    Job(WRITER, "writer", "rwsem", "D", 1),
    Job(COMPLETES, "completes", "completion", "D"),
    Job(XENSTORE, "xenstore", "xenstore", "D"),
    Job(DOWN, "down", "semaphore", "D"),
)

#: The function with the struct by which each waits, the struct, and the variable.
_WAITS = {
    FIRST: (_MUTEX, "mutex_waiter", "second_mutex"),
    SECOND: (_MUTEX, "mutex_waiter", "first_mutex"),
    THIRD: (_MUTEX, "mutex_waiter", "first_mutex"),
    WRITER: (_RWSEM, "rwsem_waiter", "some_rwsem"),
    COMPLETES: (_COMPLETION, "swait_queue", "some_completion"),
    XENSTORE: (_QUEUE, "wait_queue_entry", "some_queue"),
    DOWN: (_SEMAPHORE, "semaphore_waiter", "some_semaphore"),
}
#: The list in a variable, and that in a waiter, by the struct of the waiter.
_LISTS = {
    "mutex_waiter": ("wait_list", "list"),
    "rwsem_waiter": ("wait_list", "list"),
    "semaphore_waiter": ("wait_list", "list"),
    "swait_queue": ("wait.task_list", "task_list"),
    "wait_queue_entry": ("head", "entry"),
}
#: Bits of mutex.owner and rw_semaphore.count: it has waiters; a writer holds it.
_WAITERS, _RWSEM_WAITERS, _WRITER_LOCKED = 1, 2, 1


class Blocked(Linux61):
    """Writes waiters to the stacks once all tasks are made."""

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """Those of 6.1, and of functions that lock."""
        return {**super().sleeps(), **EXTRA.sleeps}

    def link_tasks(self) -> None:
        """Links the lists of waiters, too."""
        super().link_tasks()
        lists: dict[str, list[int]] = {}
        for pid, (function, struct, variable) in _WAITS.items():
            task = self.task(pid)
            waiter = View(self.guest, self.types.struct(struct), self._locals(task, function))
            waiter.put(task=task.address, private=task.address)
            if struct == "wait_queue_entry":
                waiter["func"] = self.image.symbol("autoremove_wake_function")
            head, links = _LISTS[struct]
            heads = lists.setdefault(variable, [self.variable(variable).at(head)])
            heads.append(waiter.at(links))
        for heads in lists.values():
            self.link(heads)
        self.variable("first_mutex")["owner.counter"] = self.task(FIRST).address | _WAITERS
        self.variable("second_mutex")["owner.counter"] = self.task(SECOND).address | _WAITERS
        self.variable("some_rwsem")["owner.counter"] = self.task(THIRD).address
        self.variable("some_rwsem")["count.counter"] = _RWSEM_WAITERS | _WRITER_LOCKED

        self._link_tree()

    def _link_tree(self) -> None:
        """Links three tasks to a red-black tree, and two of them to an hlist."""
        first, second, third = (self.task(pid).view for pid in (FIRST, SECOND, THIRD))
        node, link = "se.run_node", "pid_links[0]"
        self.variable("some_tree")["rb_node"] = second.at(node)
        second[f"{node}.rb_left"] = first.at(node)
        second[f"{node}.rb_right"] = third.at(node)
        for child in (first, third):
            child[f"{node}.__rb_parent_color"] = second.at(node)
        self.variable("some_hlist")["first"] = third.at(link)
        third[f"{link}.next"] = first.at(link)

    @staticmethod
    def _locals(task: Task, function: str) -> int:
        (frame,) = (frame for frame in task.frames if frame.symbol == function)
        return frame.sp
