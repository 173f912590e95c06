//! The core's limits (files, P2M, images, unwinding) on corrupt and hostile input.
//!
//! Each constant's documentation says what is limited, in which unit, and why real input stays
//! below it. Limits that scale with the dump are [`crate::budget::Budget`]s.

// == Files ==

/// Mapped files at once. Further ones are read by `pread`.
pub const MAX_MAPPED_FILES: usize = 1024;

/// Program headers of an ELF dump. A terabyte of memory in segments of 1 MiB has 2^20; real dumps
/// have a few hundred.
pub const MAX_PROGRAM_HEADERS: usize = 1 << 20;

/// Notes of a dump. Xen writes two or three for each pCPU.
pub const MAX_NOTES: u64 = 1 << 17;

/// Total bytes of all note descriptors of a dump. Device dumps (NT_VMCOREDD) are not counted: they
/// have any number of MiB, and only their names are read.
pub const MAX_DESCRIPTORS_SIZE: u64 = 256 << 20;

/// Bytes of a note's name. The longest known has 18.
pub const MAX_NOTE_NAME: u64 = 256;

/// Warnings about the headers of a dump. A hostile file can cause millions.
pub const MAX_DUMP_WARNINGS: usize = 64;

/// Section headers of an `xl dump-core` file. xl writes eight.
pub const MAX_DUMP_CORE_SECTIONS: usize = 1 << 16;

/// Bytes of the section names of an `xl dump-core` file. xl writes 81.
pub const MAX_DUMP_CORE_NAMES_SIZE: u64 = 1 << 16;

/// Bytes of one section name of an `xl dump-core` file. The longest that xl writes has 16. Every
/// section may refer to the whole string table.
pub const MAX_DUMP_CORE_NAME: usize = 32;

/// vCPUs of an `xl dump-core` file. No Xen version allows a domain more than 8192.
pub const MAX_DUMP_CORE_VCPUS: u64 = 1 << 14;

/// Pages of a kdump-compressed dump: 64 TiB of memory. Their bitmap takes 2 GiB, the counts of its
/// bits 128 MiB.
pub const MAX_KDUMP_PAGES: u64 = 1 << 34;

/// Files of a split dump. `makedumpfile --split` writes one for each name that it is given.
pub const MAX_DUMP_PARTS: usize = 256;

/// Entries of a directory that are examined to find the other files of a split dump.
pub const MAX_DIRECTORY_ENTRIES: usize = 1 << 12;

/// Runs of blocks of a flattened file, 40 bytes each. makedumpfile writes blocks of up to 64 KiB,
/// most of them contiguous. 1 TiB of data has 2^24 blocks, even if none is contiguous with another.
pub const MAX_FLATTENED_RUNS: usize = 1 << 24;

/// Bytes between the blocks of a flattened file, in addition to the length of the file. Gaps read
/// as zeros.
pub const MAX_FLATTENED_GAPS: u64 = 1 << 20;

/// Runs of pages of a saved domain that are contiguous in the file and by pfn: 32 bytes each, and
/// 150 while the index is built. A record has up to 1024 consecutive pages, but the last passes of
/// a live save send single pages. Of a domain of 512 GiB, every eighth page may be one.
pub const MAX_SAVED_RUNS: usize = 1 << 24;

/// Contents of a frame of a zstd file that is read in place. Reading a byte decompresses its frame; tools
/// for seekable files use frames of up to 2 MiB.
pub const MAX_ZSTD_FRAME_SIZE: u64 = 8 << 20;

/// Frames of a zstd file that is read in place, 16 bytes each. A dump of 4 TiB in frames of 1 MiB
/// has 2^22.
pub const MAX_ZSTD_FRAMES: usize = 1 << 22;

/// Blocks whose headers are followed in a zstd file without a seek table. A block has up to 128
/// KiB: a dump of 512 GiB has 2^22.
pub const MAX_ZSTD_BLOCKS: u64 = 1 << 22;

/// log2 of the window of a zstd file that is unpacked: 2 GiB, the largest that `zstd --long=31`
/// writes. The window takes the address space that the file asks for, but memory only for the part
/// that was filled.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 31;

/// Buckets of the index over the runs of a dump's memory, 8 bytes each.
pub const MAX_RUN_BUCKETS: usize = 1 << 16;

/// Bytes of an ordinary allocation, which ends the process if it fails. Larger ones, and lists that
/// the dump or the caller can make longer, are made by [`crate::alloc`].
pub const MAX_SMALL_ALLOCATION: usize = 64 << 10;

/// Scattered reads after which the mapped pages of the file are unmapped, so that they do not count
/// as memory of this process. The system maps 16 pages for each read: 128 MiB at most.
pub const MAX_UNRELEASED_READS: usize = 1 << 11;

// == P2M ==

/// pfns of a P2M: 256 TiB of memory, sixteen times Xen's largest host.
pub const MAX_P2M_PAGES: u64 = 1 << 36;

/// pfns of a P2M that are summarized for batches: 16 TiB, Xen's largest host.
pub const MAX_SUMMARIZED_PAGES: u64 = 1 << 32;

/// Tables in the summary of a P2M, 2 KiB each: 1 GiB. A hostile P2M can claim more pages than the
/// dump has bytes.
pub const MAX_SUMMARY_TABLES: u64 = 1 << 19;

/// Blocks of mfns in the table from mfn to pfn: 128 TiB of machine memory. Larger mfns are looked up
/// in a sorted list.
pub const MAX_REVERSE_BLOCKS: u64 = 1 << 16;

/// Runs of pfns of one kind that one call returns. A domain of 64 GiB whose memory was ballooned page by
/// page has fewer.
pub const MAX_KIND_RUNS: usize = 1 << 22;

/// Frames of large pages in a translated guest's P2M, for each page of memory that the dump holds.
/// makedumpfile may leave out nearly all pages, and one table maps 512 GiB by its entries alone.
pub const MAX_LARGE_FRAMES_PER_PAGE: u64 = 256;

/// The minimum of this limit, however little memory the dump holds: 16 GiB.
pub const MAX_LARGE_FRAMES: u64 = 1 << 22;

/// Pages of a PV domain that is shown as a bare machine: 16 TiB, the maximum of Linux on Xen. The
/// directory of the pages that are page tables takes 4 MiB.
pub const MAX_BARE_PAGES: u64 = 1 << 32;

/// Rewritten page tables that are kept: 64 MiB. Others are rewritten at each read.
pub const MAX_REWRITTEN_TABLES: u64 = 1 << 14;

/// Page tables of a PV domain that a search finds, in addition to the number of pages that the dump
/// holds. Tables may be missing from the dump, and one page can hold 128 tables of four entries.
pub const MAX_SMALL_TABLES: u64 = 1 << 16;

/// Runs of pages of a domain that a dump holds, 16 bytes each, and runs of the dump that are
/// visited to find them. In 1 TiB, every eighth page may be a run.
pub const MAX_HELD_RUNS: u64 = 1 << 25;

/// Page tables that are looked up in Xen's frame table to infer how it encodes types.
pub const MAX_SAMPLED_TABLES: usize = 1 << 12;

/// Runs of a translated guest's frames without memory in the dump that a search of memory skips.
/// makedumpfile leaves out single pages.
pub const MAX_SKIPPED_RUNS: usize = 1 << 16;

/// Comparisons of two P2M pages whose results are kept. Two valid P2Ms share a few pages.
pub const MAX_REMEMBERED_COMPARISONS: usize = 1 << 16;

/// Comparisons of tables and of pages of two P2Ms, for each page of memory that the dump holds. In
/// valid P2Ms each comparison has a table or page that was not compared before, and none is split
/// more than once.
pub const MAX_COMPARISONS_PER_PAGE: u64 = 4;

// == Images ==

/// Bytes of a compressed image that is unpacked into memory. A kernel with the debug information of
/// all its drivers has 900 MiB.
pub const MAX_UNPACKED_IMAGE: u64 = 2 << 30;

/// Unpacked size of an image, as a multiple of its compressed size: kernels have a ratio of 3 to 10.
pub const MAX_IMAGE_UNPACKED_RATIO: u64 = 64;

/// Unpacked bytes of an image in addition to [`MAX_IMAGE_UNPACKED_RATIO`].
pub const MAX_UNPACKED_SLACK: u64 = 16 << 20;

/// Bytes by which the buffer for an unpacked image grows, if its size is not known.
pub const MAX_UNPACKED_CHUNK: u64 = 128 << 20;

/// KiB of memory of an xz or lzma decoder. `xz -9` needs 64 MiB, and Linux is compressed with
/// dictionaries of 32 to 128 MiB.
pub const MAX_IMAGE_DECODER_MEMORY: u32 = 512 << 10;

/// log2 of the window of a zstd decoder: 2 GiB, the maximum of `zstd --long`. Only the part that
/// was filled takes memory.
pub const MAX_IMAGE_WINDOW_LOG: u32 = 31;

/// Candidates for the start of the compressed part of a kernel older than boot protocol 2.08.
pub const MAX_PAYLOAD_CANDIDATES: usize = 64;

/// Sections of an EFI executable that are searched for a kernel. systemd's stub has 12.
pub const MAX_EFI_SECTIONS: u16 = 96;

/// Section headers of an image. A module built with a section for each function has 20,000.
pub const MAX_IMAGE_SECTIONS: usize = 1 << 17;

/// Bytes of a section's name in an image. Those of a kernel have 30.
pub const MAX_SECTION_NAME: usize = 256;

/// Note sections that are searched for an image's build id. A kernel has five.
pub const MAX_BUILD_ID_SECTIONS: usize = 64;

/// Bytes of a note section that is searched for an image's build id. A kernel's have 100.
pub const MAX_BUILD_ID_SECTION_SIZE: u64 = 64 << 10;

/// Bytes of a section of an image. A file may have holes that cost it nothing; the largest
/// `.debug_info` of a kernel seen has 400 MiB.
pub const MAX_SECTION_SIZE: u64 = 1 << 30;

/// Inflated size of all compressed sections of an image, as a multiple of the file's size: several
/// sections may lie on the same bytes. Debug information inflates to 3 to 10 times its size.
pub const MAX_INFLATED_RATIO: u64 = 16;

/// Inflated bytes of all compressed sections of an image that are always permitted, however small
/// the file is.
pub const MAX_INFLATED_SMALL: u64 = 64 << 20;

/// Inflated size of one section, as a multiple of its compressed size. Debug information has a
/// ratio of 3 to 10, a zlib bomb one of 1000.
pub const MAX_SECTION_RATIO: u64 = 64;

/// Inflated bytes of one section in addition to [`MAX_SECTION_RATIO`].
pub const MAX_SECTION_SLACK: u64 = 1 << 20;

/// Symbols of a map file. A distribution's kernel has 2^17. A symbol in memory takes fifteen times
/// the size of the shortest line.
pub const MAX_MAP_SYMBOLS: usize = 1 << 22;

/// Symbols below an address that are checked for covering it. At most 60 labels were seen within
/// one function.
pub const MAX_LABELS: usize = 256;

/// Symbols of one name that are returned. At most 489 were seen: `.LC0` in a kernel with 127,398
/// symbols.
pub const MAX_SAME_NAMES: usize = 4096;

/// Bytes of a symbol's name. The kernel's limit (`KSYM_NAME_LEN`) is 512. Many symbols may refer to
/// one very long string.
pub const MAX_SYMBOL_NAME: usize = 1024;

/// Bytes of mapped memory that are searched for a kernel's own symbol table: the part of the
/// address space that x86_64 reserves for the image.
pub const MAX_KERNEL_IMAGE_SEARCH: u64 = 1 << 30;

/// Candidates for the token table of a kernel's symbols. A kernel has one; the page cache can have
/// copies in a file.
pub const MAX_KALLSYMS_CANDIDATES: usize = 64;

/// Names that are compared with the markers, over all candidates for the token table. A candidate
/// costs the number of names that it claims to have.
pub const MAX_KALLSYMS_CHECKED_NAMES: u64 = 8 << 20;

/// Bytes of the token table. At most 1100 were seen.
pub const MAX_KALLSYMS_TOKENS_SIZE: u64 = 16 << 10;

/// Symbols in a kernel's memory. Linux 7.3 with all drivers has 209,812.
pub const MAX_KALLSYMS_SYMBOLS: usize = 1 << 20;

/// Bytes of the compressed names of these symbols. Linux 7.3 has 3.4 MB.
pub const MAX_KALLSYMS_NAMES_SIZE: u64 = 32 << 20;

/// Bytes of the expanded names of these symbols. A token can expand to any string.
pub const MAX_KALLSYMS_STRINGS_SIZE: usize = 64 << 20;

/// Symbols that a kernel exports to modules. Linux 7.3 has 15,000.
pub const MAX_EXPORTED_SYMBOLS: usize = 1 << 17;

/// Instructions before symbols that are decoded to tell labels from functions. Linux 7.3 has
/// 300,000.
pub const MAX_LABEL_INSTRUCTIONS: usize = 1 << 22;

/// Bytes of one section in a kernel's memory: types, unwind tables. The largest seen, the BTF of Linux
/// 7.3, has 5.5 MB.
pub const MAX_MEMORY_SECTION_SIZE: u64 = 64 << 20;

// == Types ==

/// Types and members visited for one query about a type. The longest struct of Linux 6.1 has 576
/// members, the longest enum seen 900 enumerators.
pub const MAX_TYPE_STEPS: usize = 1 << 18;

/// Steps for a query that lists all members or enumerators of a type. Each costs 64 steps, and one
/// for each byte of its names: at most 2^16 of them, with 4 MiB of names.
pub const MAX_TYPE_LIST_STEPS: usize = 1 << 22;

/// Types that are reached from other types. The BTF of Linux 6.1 has 130,000, including the
/// prototypes of functions.
pub const MAX_GRAPH_TYPES: usize = 1 << 22;

/// Typedefs, dimensions, pointers or anonymous structs in a chain. Linux needs 8.
pub const MAX_TYPE_DEPTH: usize = 64;

/// Names in an index of DWARF, 16 bytes each. A kernel has 10^5 to 10^6; a hostile image has one
/// every two bytes.
pub const MAX_INDEXED_TYPES: usize = 1 << 22;

/// Bytes of an index of DWARF in the cache. An index of [`MAX_INDEXED_TYPES`] names takes 48 MiB.
pub const MAX_INDEX_FILE: usize = 64 << 20;

/// Dimensions of an array in DWARF. The entry is read again for each dimension.
pub const MAX_ARRAY_DIMENSIONS: usize = 16;

/// Attributes of an abbreviation. Compilers write about 20. An attribute may take no bytes in an
/// entry, so an entry of one byte can have any number of them.
pub const MAX_ATTRIBUTES: usize = 64;

/// Bytes of a line program of DWARF with its header. Longer ones are ignored. The longest of Linux
/// 6.1, 6.12 and Xen 4.20 has 315,000.
pub const MAX_LINE_PROGRAM: usize = 4 << 20;

/// Bytes of the header of a line program: names of directories and files, each of which takes 200
/// bytes of memory. The longest of Linux 6.1, 6.12 and Xen 4.20 has 2309.
pub const MAX_LINE_HEADER: usize = 256 << 10;

/// Bytes of all line programs that are executed to index their addresses. Linux 6.1 has 17 MiB.
pub const MAX_LINE_PROGRAMS_SIZE: usize = 256 << 20;

/// Sequences of line programs, 24 bytes each. A sequence is contiguous code of one file. Linux 6.1
/// has 4400.
pub const MAX_LINE_SEQUENCES: usize = 1 << 20;

/// Sequences that start below an address and are checked for containing it. In a valid file,
/// sequences do not overlap.
pub const MAX_OVERLAPPING_SEQUENCES: usize = 16;

// == Structs ==

/// Bytes of a name in a path, such as that of a file. Linux limits them to 255 (NAME_MAX).
pub const MAX_NODE_NAME: usize = 255;

// == Unwinding ==

/// Frames of a backtrace. A kernel's stack has 16 KiB.
pub const MAX_FRAMES: usize = 1024;

/// Cost of the code of one stack, in instructions; other operations are charged at equivalent cost.
/// A stack full of return addresses into a thousand functions leaves a thousand instructions for
/// each; Linux's functions have a few hundred. None of 18,714 stacks of Linux 6.1 cost 18,000.
pub const MAX_UNWIND_WORK: u64 = 1 << 20;

/// Instructions whose frame layout is cached, and targets of jumps: at most 100 MiB. All functions
/// on the stacks of Linux 6.1 have 36,000 instructions.
pub const MAX_CACHED_CODE: usize = 1 << 20;

/// Instructions followed in one function.
pub const MAX_FUNCTION_INSTRUCTIONS: usize = 8192;

/// Bytes of a function whose size is not known.
pub const MAX_FUNCTION_SIZE: u64 = 64 << 10;

/// Frame layouts of one instruction. More than that show that the code is not decoded correctly.
pub const MAX_INSTRUCTION_LAYOUTS: usize = 4;

/// Bytes of a frame: the size of a stack.
pub const MAX_FRAME_SIZE: i64 = 16 << 10;

/// Pages of code that are kept while functions are followed. Many functions share a page, and few
/// have several.
pub const MAX_CODE_PAGES: usize = 64;

/// Bytes of a function that are searched for tail calls.
pub const MAX_TAIL_JUMP_CODE: usize = 32 << 10;

/// Unknown kinds of BTF types. The size of each is found by trying nine sizes.
pub const MAX_UNKNOWN_BTF_KINDS: usize = 2;

/// BTF types that are read to find the size of an unknown kind, in addition to four times the
/// number of types. A wrong size soon leads to an invalid type.
pub const MAX_BTF_STEPS: usize = 1 << 20;

/// Bytes of a table of an image that is read from memory, because the file does not contain it. The
/// largest of a kernel have 10 MiB.
pub const MAX_TABLE_IN_MEMORY: u64 = 64 << 20;

/// Functions whose code verifies the format of ORC.
pub const MAX_ORC_SAMPLE: usize = 128;

/// Bytes of a function's call frame information, which is interpreted for each of its frames. The
/// longest of Linux 6.1 for i386 has 3412.
pub const MAX_FDE_SIZE: usize = 64 << 10;

/// Bytes of a CIE, the part that functions share. The longest of Xen 4.17 has 116.
pub const MAX_CIE_SIZE: u64 = 1 << 10;

/// Operations of an expression in call frame information. A kernel's have a few.
pub const MAX_CFI_OPERATIONS: u32 = 256;

/// Scans of one stack: one for each interrupted frame, and one for each frame that another method
/// found within a chain.
pub const MAX_STACK_SCANS: usize = 16;

/// Bytes of a stack that are scanned. Linux's have 4 to 16 KiB, with KASAN 32.
pub const MAX_SCANNED_STACK: u64 = 32 << 10;

/// Candidates for frames in a scan. Each pair of them is compared.
pub const MAX_SCAN_CANDIDATES: usize = 512;
