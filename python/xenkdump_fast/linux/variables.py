"""Types of global variables.

BTF describes per-CPU variables only, and kallsyms has no types at all. The table is merged over the
versions of Linux: a variable has the type of the row whose versions include the kernel's. Those of
6.1 are from the DWARF of Debian's kernel (``tools/variable_types.py`` prints them); the versions of
changes are those of the commits that are named. ``tests/real/test_variables.py`` compares the sizes
of the types with those of the symbols of 6.1, 6.12 and 7.3.
"""

from .._typing import NamedTuple

Version = tuple[int, ...]
_FIRST: Version = (2, 6, 16)


class Row(NamedTuple):
    """The type of a variable in a range of versions."""

    type: str
    #: The first version with it.
    since: Version = _FIRST
    #: The first version without it; None if the latest one has it.
    until: Version | None = None
    #: The size of a word in bytes, if the type is not the same for both.
    word: int | None = None


def _rows(type_name: str, names: str) -> dict[str, tuple[Row, ...]]:
    """Variables whose type is the same in all versions that have them."""
    return {name: (Row(type_name),) for name in names.split()}


TYPES: dict[str, tuple[Row, ...]] = {
    **_rows("struct task_struct", "init_task"),
    **_rows("struct mm_struct", "init_mm"),
    **_rows("union thread_union", "init_thread_union"),
    **_rows("struct files_struct", "init_files"),
    **_rows("struct fs_struct", "init_fs"),
    **_rows("struct cred", "init_cred"),
    **_rows("struct signal_struct", "init_signals"),
    **_rows("struct sighand_struct", "init_sighand"),
    **_rows("struct nsproxy", "init_nsproxy"),
    **_rows("struct pid_namespace", "init_pid_ns"),
    **_rows("struct uts_namespace", "init_uts_ns"),
    **_rows("struct user_namespace", "init_user_ns"),
    **_rows("struct net", "init_net"),
    **_rows("struct css_set", "init_css_set"),
    **_rows("struct cgroup_root", "cgrp_dfl_root"),
    **_rows("struct task_group", "root_task_group"),
    **_rows("struct list_head", "modules super_blocks slab_caches net_namespace_list"),
    **_rows("struct list_head", "workqueues ftrace_trace_arrays pci_root_buses task_groups"),
    **_rows("rwlock_t", "tasklist_lock"),
    **_rows("spinlock_t", "sb_lock"),
    **_rows("struct mutex", "module_mutex slab_mutex wq_pool_mutex"),
    **_rows("char *", "log_buf"),
    **_rows("const char []", "linux_banner linux_proc_banner"),
    **_rows("volatile unsigned long", "jiffies"),
    **_rows("u64", "jiffies_64"),
    **_rows("unsigned long []", "avenrun __per_cpu_offset"),
    **_rows("unsigned long", "total_forks tick_nsec max_pfn max_low_pfn min_low_pfn phys_base"),
    **_rows("unsigned long", "page_offset_base vmalloc_base vmemmap_base totalreserve_pages"),
    **_rows("struct timezone", "sys_tz"),
    **_rows("int", "max_threads panic_on_oops oops_in_progress crashing_cpu"),
    **_rows("unsigned int", "cpu_khz tsc_khz nr_cpu_ids nr_node_ids nr_swapfiles"),
    **_rows("struct cpumask", "__cpu_possible_mask __cpu_online_mask __cpu_present_mask"),
    **_rows("struct cpumask", "__cpu_active_mask"),
    **_rows("struct cpuinfo_x86", "boot_cpu_data"),
    **_rows("note_buf_t *", "crash_notes"),
    **_rows("atomic_t", "panic_cpu"),
    **_rows("unsigned char *", "vmcoreinfo_data"),
    **_rows("u32 *", "vmcoreinfo_note"),
    **_rows("size_t", "vmcoreinfo_size"),
    **_rows("struct kimage *", "kexec_crash_image"),
    **_rows("struct resource", "crashk_res iomem_resource ioport_resource"),
    **_rows("struct pglist_data", "contig_page_data"),
    **_rows("struct pglist_data *[]", "node_data"),
    **_rows("struct page *", "mem_map"),
    **_rows("void *", "high_memory"),
    **_rows("atomic_long_t", "_totalram_pages _totalhigh_pages nr_swap_pages"),
    **_rows("atomic_long_t []", "vm_zone_stat vm_node_stat"),
    **_rows("struct percpu_counter", "vm_committed_as"),
    **_rows("struct hstate []", "hstates"),
    **_rows("struct swap_info_struct *[]", "swap_info"),
    **_rows("struct file_system_type *", "file_systems"),
    **_rows("struct hlist_bl_head *", "dentry_hashtable"),
    **_rows("struct hlist_head *", "inode_hashtable mount_hashtable"),
    **_rows("unsigned int", "d_hash_shift i_hash_shift"),
    **_rows("seqlock_t", "mount_lock"),
    **_rows("struct rw_semaphore", "net_rwsem"),
    **_rows("struct inet_hashinfo", "tcp_hashinfo"),
    **_rows("struct udp_table", "udp_table"),
    **_rows("struct idr", "prog_idr map_idr"),
    **_rows("struct hlist_head []", "kprobe_table unbound_pool_hash"),
    **_rows("struct softirq_action []", "softirq_vec"),
    **_rows("struct rcu_state", "rcu_state"),
    **_rows("struct kset *", "bus_kset class_kset module_kset"),
    **_rows("struct kobject *", "kernel_kobj"),
    **_rows("const char *const []", "task_state_array"),
    **_rows("struct shared_info *", "HYPERVISOR_shared_info"),
    **_rows("struct start_info *", "xen_start_info"),
    **_rows("enum xen_domain_type", "xen_domain_type"),
    **_rows("unsigned long *", "machine_to_phys_mapping xen_p2m_addr"),
    **_rows("unsigned long", "machine_to_phys_nr xen_p2m_size xen_max_p2m_pfn"),
    **_rows("enum system_states", "system_state"),
    **_rows("struct list_head", "tty_drivers bpf_kallsyms ftrace_mod_maps"),
    **_rows("struct list_head", "ftrace_ops_trampoline_list"),
    **_rows("struct ftrace_ops *", "ftrace_ops_list"),
    **_rows("struct ftrace_ops", "ftrace_list_end"),
    **_rows("struct atomic_notifier_head", "keyboard_notifier_list"),
    **_rows("unsigned long", "module_addr_min module_addr_max"),
    **_rows("int", "cap_last_cap num_registered_fb"),
    **_rows("struct fb_info *[]", "registered_fb"),
    **_rows("struct dentry_operations", "sockfs_dentry_operations"),
    **_rows("struct file_operations", "socket_file_ops"),
    **_rows("struct tcp_seq_afinfo", "tcp4_seq_afinfo tcp6_seq_afinfo"),
    **_rows("struct udp_seq_afinfo", "udp4_seq_afinfo udp6_seq_afinfo"),
    **_rows("struct udp_seq_afinfo", "udplite4_seq_afinfo udplite6_seq_afinfo"),
    **_rows("struct seq_operations", "raw_seq_ops udp_seq_ops arp_seq_ops unix_seq_ops"),
    **_rows("struct seq_operations", "raw6_seq_ops udp6_seq_ops packet_seq_ops"),
    **_rows("struct seq_operations", "tcp_seq_ops tcp4_seq_ops tcp6_seq_ops"),
    **_rows("u32", "log_first_idx log_next_idx"),
    **_rows("struct hlist_head *", "pid_hash"),
    **_rows("unsigned int", "pidhash_shift"),
    **_rows("struct neigh_table", "arp_tbl"),
    **_rows("struct class", "block_class"),
    **_rows("struct super_block *", "blockdev_superblock"),
    **_rows("struct idr", "btf_idr link_idr"),
    **_rows("struct kobj_type", "bus_ktype class_ktype device_ktype driver_ktype module_ktype"),
    **_rows("struct kobj_map *", "cdev_map"),
    **_rows("struct char_device_struct *[]", "chrdevs"),
    **_rows("struct blk_major_name *[]", "major_names"),
    **_rows("int", "hugetlb_max_hstate ipc_mni_shift nr_irqs sections_per_block"),
    **_rows("int", "sysctl_overcommit_ratio"),
    **_rows("unsigned int", "total_nr_irqs nr_vmap_nodes vmap_zone_size"),
    **_rows("unsigned int []", "nr_swapper_spaces"),
    **_rows("long", "total_swap_pages"),
    **_rows("unsigned long", "sysctl_overcommit_kbytes"),
    **_rows("gate_desc []", "idt_table"),
    **_rows("struct ipc_namespace", "init_ipc_ns"),
    **_rows("struct maple_tree", "sparse_irqs"),
    **_rows("struct memblock", "memblock"),
    **_rows("struct bus_type", "memory_subsys pci_bus_type"),
    **_rows("struct mod_tree_root", "mod_tree"),
    **_rows("nodemask_t []", "node_states"),
    **_rows("const struct file_operations", "ns_file_operations"),
    **_rows("struct timer_list", "poll_spurious_irq_timer"),
    **_rows("struct kset *", "slab_kset"),
    **_rows("void *[]", "stack_slabs"),
    **_rows("struct kernfs_node *", "sysfs_root_kn"),
    **_rows("const struct taint_flag []", "taint_flags"),
    **_rows("struct kmem_cache *", "task_struct_cachep"),
    **_rows("atomic_long_t []", "vm_numa_event"),
    **_rows("struct list_head", "vmap_area_list"),
    **_rows("struct rb_root", "vmap_area_root"),
    **_rows("struct vmap_node *", "vmap_nodes"),
    **_rows("struct tk_data []", "timekeeper_data"),
    # 2.6.18, 70b97a7f0b19. Per-CPU: BTF has it.
    "runqueues": (Row("struct runqueue", until=(2, 6, 18)), Row("struct rq", since=(2, 6, 18))),
    # 2.6.21, 30d7e0d466b3.
    "saved_command_line": (
        Row("char []", until=(2, 6, 21)),
        Row("char *", since=(2, 6, 21)),
    ),
    # 2.6.28: a mask in place of an int.
    "tainted": (Row("int", until=(2, 6, 28)),),
    "tainted_mask": (Row("unsigned long", since=(2, 6, 28)),),
    # 5.10, 896fbe20b4e2.
    "prb": (Row("struct printk_ringbuffer *", since=(5, 10)),),
    "printk_rb_static": (Row("struct printk_ringbuffer", since=(5, 10)),),
    # 2.6.19, 4865ecf1315b: in a namespace since then.
    "system_utsname": (Row("struct new_utsname", until=(2, 6, 19)),),
    # 4.13, 65ade2f872b4, renamed init_level4_pgt.
    "init_top_pgt": (Row("pgd_t []", since=(4, 13)),),
    "init_level4_pgt": (Row("pgd_t []", until=(4, 13)),),
    "swapper_pg_dir": (Row("pgd_t []"),),
    # 4.15, 83e3c48729d9, with CONFIG_SPARSEMEM_EXTREME, as on x86_64.
    "mem_section": (
        Row("struct mem_section *[]", until=(4, 15), word=8),
        Row("struct mem_section **", since=(4, 15), word=8),
    ),
    # 4.20, f8d5d0cc145c, of which a radix tree is another name.
    "irq_desc_tree": (
        Row("struct radix_tree_root", until=(4, 20)),
        Row("struct xarray", since=(4, 20)),
    ),
    # 4.11, 4b3ef9daa4fc.
    "swapper_spaces": (
        Row("struct address_space []", until=(4, 11)),
        Row("struct address_space *[]", since=(4, 11)),
    ),
    # 5.3, 2491f0a2c0b1, in place of an int.
    "__highest_present_section_nr": (
        Row("int", until=(5, 3)),
        Row("unsigned long", since=(5, 3)),
    ),
    # 4.20, 80ffbaa5b1bd.
    "kallsyms_num_syms": (
        Row("unsigned long", until=(4, 20)),
        Row("unsigned int", since=(4, 20)),
    ),
    # 4.20, 9c0be3f6b5d7: offsets where the architecture has them.
    "__start___tracepoints_ptrs": (Row("tracepoint_ptr_t []", since=(4, 20)),),
    "__stop___tracepoints_ptrs": (Row("tracepoint_ptr_t []", since=(4, 20)),),
    # 3.17, 3fdb14fd1df7.
    "timekeeper": (Row("struct timekeeper", until=(3, 17)),),
    # 5.10, 025e82bcbc34, and 6.13; renamed timekeeper_data later.
    "tk_core": (
        Row("struct { seqcount_t seq; struct timekeeper timekeeper; }", (3, 17), (5, 10)),
        Row(
            "struct { seqcount_raw_spinlock_t seq; struct timekeeper timekeeper; }",
            since=(5, 10),
            until=(6, 13),
        ),
        Row("struct tk_data", since=(6, 13)),
    ),
}


def type_of(name: str, version: Version, word: int = 8) -> str | None:
    """The type of a variable in C syntax; None if it is not known for a kernel of that version.

    ``version`` is empty if it is not known: then only what is the same in all versions is. ``word``
    is the kernel's word size in bytes.
    """
    for row in TYPES.get(name, ()):
        if row.word not in (None, word):
            continue
        if row.since == _FIRST and row.until is None:
            return row.type
        if version and row.since <= version and (row.until is None or version < row.until):
            return row.type
    return None
