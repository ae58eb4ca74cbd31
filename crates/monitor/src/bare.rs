//! What a program needs when it brings no C library and no standard library: entry, heap, and the
//! memory functions that the compiler calls. There is a monitor for every container, and with these
//! it is a twelfth of the size.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

use crate::os;

// The stack must be aligned at the call; nothing on it is wanted.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    // What the precompiled libraries name for unwinding, which never happens.
    ".globl rust_eh_personality, _Unwind_Resume",
    "rust_eh_personality:",
    "_Unwind_Resume:",
    "ud2",
    main = sym entry,
);

extern "C" fn entry() -> ! {
    crate::main_loop()
}

/// Exit code after a bug. There is nobody to read words: standard error is /dev/null.
const PANICKED: i32 = 101;

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    os::exit(PANICKED)
}

/// Smallest and largest sizes that are kept in lists; larger ones are mappings of their own, which
/// go back to the kernel when freed.
const SMALLEST: usize = 16;
const CLASSES: usize = 9;
const LARGEST: usize = SMALLEST << (CLASSES - 1);
/// Memory is taken from the kernel in pieces of this size.
const PIECE: usize = 64 * 1024;
const PAGE: usize = 4096;

/// A heap for one thread: lists of free blocks, one for each power of two.
struct Heap(UnsafeCell<Lists>);

struct Lists {
    free: [*mut u8; CLASSES],
    next: *mut u8,
    left: usize,
}

// SAFETY: the program has one thread.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(Lists { free: [null_mut(); CLASSES], next: null_mut(), left: 0 }));

/// Which list a block of `size` bytes is in; `None`: it is a mapping.
fn class(size: usize) -> Option<usize> {
    let size = size.max(SMALLEST).next_power_of_two();
    (size <= LARGEST).then(|| (size.trailing_zeros() - SMALLEST.trailing_zeros()) as usize)
}

/// A block must be as large as its alignment, which then comes by itself: blocks are powers of two,
/// cut from pieces in multiples of their size.
fn wanted(layout: Layout) -> usize {
    layout.size().max(layout.align())
}

fn pages(size: usize) -> usize {
    size.next_multiple_of(PAGE)
}

impl Lists {
    fn take(&mut self, class: usize) -> *mut u8 {
        let head = self.free[class];
        if !head.is_null() {
            // SAFETY: a free block begins with the address of the next one.
            self.free[class] = unsafe { head.cast::<*mut u8>().read() };
            return head;
        }
        let size = SMALLEST << class;
        let gap = self.next.align_offset(size);
        if self.left < gap + size {
            match os::map(PIECE) {
                Ok(piece) => (self.next, self.left) = (piece, PIECE),
                Err(_) => return null_mut(),
            }
            return self.cut(0, size);
        }
        self.cut(gap, size)
    }

    fn cut(&mut self, gap: usize, size: usize) -> *mut u8 {
        // SAFETY: the caller has seen that so much is left.
        let block = unsafe { self.next.add(gap) };
        // SAFETY: as above.
        self.next = unsafe { block.add(size) };
        self.left -= gap + size;
        block
    }
}

// SAFETY: blocks do not overlap, are as large and aligned as asked for, and stay until freed.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(wanted(layout)) {
            // SAFETY: one thread, and no reference outlives a call.
            Some(class) => unsafe { (*self.0.get()).take(class) },
            None => os::map(pages(layout.size())).unwrap_or(null_mut()),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(wanted(layout)) {
            Some(class) => {
                // SAFETY: as in `alloc`; the block is ours again and has room for an address.
                unsafe {
                    let lists = &mut *self.0.get();
                    block.cast::<*mut u8>().write(lists.free[class]);
                    lists.free[class] = block;
                }
            }
            None => os::unmap(block, pages(layout.size())),
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the size is not zero and does not overflow, says the caller.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(wanted(layout)), class(wanted(new))) {
            (Some(old), Some(new)) if old == new => block,
            (None, None) => os::remap(block, pages(layout.size()), pages(size)).unwrap_or(null_mut()),
            _ => {
                // SAFETY: two blocks, each at least as large as what is copied.
                unsafe {
                    let to = self.alloc(new);
                    if !to.is_null() {
                        to.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    to
                }
            }
        }
    }
}

/// memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller gives n bytes at both; the direction flag is clear between calls.
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

/// memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: copying forward never overwrites what is still to be read.
        return unsafe { memcpy(to, from, n) };
    }
    // SAFETY: as for memcpy, from the last byte down; the direction flag is cleared again.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") n => _,
            inout("rdi") to.wrapping_add(n).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(n).wrapping_sub(1) => _,
            options(nostack)
        );
    }
    to
}

/// memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller gives n bytes; the direction flag is clear between calls.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("eax") byte, options(nostack, preserves_flags));
    }
    to
}

/// memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    for i in 0..n {
        // SAFETY: the caller gives n bytes at both. Volatile, so that it is not made a memcmp.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// bcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(a, b, n) }
}

/// strlen(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(s: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the caller's string ends with NUL.
    while unsafe { s.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}
