//! Tiles of a bf16 product in the matrix registers of recent Xeons (AMX): sixteen rows by sixteen lanes each.
//!
//! Written in assembly, since Rust has no stable intrinsics for them.

use std::arch::asm;
use std::marker::PhantomData;

use super::avx512::{self, Tile};
use super::{PANEL, PARTS};

/// Weight rows of a tile: two registers of sixteen.
pub(crate) const TILE_ROWS: usize = 32;
/// Words of the inner dimension that an instruction takes.
const STEP: usize = 16;
/// Bytes from a word of all lanes to the next.
const LANE_BYTES: usize = 4 * PANEL;

/// Asks the system for the registers, which it gives to programs that want them alone.
#[cfg(target_os = "linux")]
pub(crate) fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that changes nothing but this permission.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// No other system is known here to give them.
#[cfg(not(target_os = "linux"))]
pub(crate) fn permitted() -> bool {
    false
}

/// The registers, set up for this thread until it is dropped; nothing but the assembly here uses them.
pub(crate) struct Registers(PhantomData<*const ()>);

impl Registers {
    /// # Safety
    /// The processor must have AMX with bf16, and the system must have permitted it. There must be no second one
    /// on this thread, so nothing may be given to rayon while it lives.
    pub(crate) unsafe fn new() -> Self {
        #[repr(C, align(64))]
        struct Shapes {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.row_bytes[..8].fill(64);
        shapes.rows[..8].fill(16);
        // SAFETY: as the caller's.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
        Registers(PhantomData)
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the registers are there, or this would not be.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// The tile of `rows` weight rows, 1 to [`TILE_ROWS`].
///
/// # Safety
/// As of [`avx512::rows_bf16`]; [`Registers`] must be held by this thread.
pub(crate) unsafe fn rows(rows: usize, t: &Tile) {
    // SAFETY: as the caller's; what is left of rows and words stays inside the tile.
    unsafe {
        let whole = t.words / STEP;
        if !rows.is_multiple_of(16) || t.step != 1 || whole == 0 {
            return rest(rows, t);
        }
        match (rows == TILE_ROWS, t.parts) {
            (true, 1) => steps(t, whole),
            (true, PARTS) => split_steps(t, whole),
            (false, 1) => half_steps(t, whole),
            (false, PARTS) => return rest(rows, t),
            _ => unreachable!("inputs are whole or in {PARTS} parts"),
        }
        if t.words > whole * STEP {
            let mut t = *t;
            t.w = t.w.add(whole * STEP);
            t.x = t.x.add(whole * STEP * PANEL);
            (t.words, t.add) = (t.words - whole * STEP, true);
            rest(rows, &t);
        }
    }
}

unsafe fn rest(rows: usize, t: &Tile) {
    for row in (0..rows).step_by(avx512::TILE_ROWS) {
        for part in 0..t.parts {
            let mut t = *t;
            // SAFETY: the row and the part are some of the tile's.
            unsafe {
                t.w = t.w.add(row * t.ldw);
                t.x = t.x.add(part * t.part);
                t.sums = t.sums.add(row * PANEL);
                t.add |= part > 0;
                avx512::rows_bf16(avx512::TILE_ROWS.min(rows - row), &t);
            }
        }
    }
}

/// Loads sixteen words of 32 lanes.
macro_rules! lanes {
    ($x:literal) => {
        concat!("tileloadd tmm6, [{", $x, "} + {l}]\n", "tileloadd tmm7, [{", $x, "} + {l} + 64]")
    };
}

/// Adds up the products of 16 loaded rows and the loaded lanes.
macro_rules! multiply_half {
    () => {
        "tdpbf16ps tmm0, tmm4, tmm6\n tdpbf16ps tmm1, tmm4, tmm7"
    };
}

/// The same for 32 rows.
macro_rules! multiply {
    () => {
        concat!(multiply_half!(), "\n tdpbf16ps tmm2, tmm5, tmm6\n tdpbf16ps tmm3, tmm5, tmm7")
    };
}

/// A loop over words for 32 rows and 32 lanes: takes up the sums, runs the steps, puts the sums back.
macro_rules! full_tile {
    ($t:ident, $count:ident, [$($step:expr,)*], $($inputs:tt)*) => {
        asm!(
            "test {add:e}, {add:e}",
            "jz 2f",
            "tileloadd tmm0, [{s} + {l}]",
            "tileloadd tmm1, [{s} + {l} + 64]",
            "tileloadd tmm2, [{s} + {l} + 2048]",
            "tileloadd tmm3, [{s} + {l} + 2112]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            $($step,)*
            "dec {count}",
            "jnz 3b",
            "tilestored [{s} + {l}], tmm0",
            "tilestored [{s} + {l} + 64], tmm1",
            "tilestored [{s} + {l} + 2048], tmm2",
            "tilestored [{s} + {l} + 2112], tmm3",
            $($inputs)*
            add = in(reg) u32::from($t.add),
            count = inout(reg) $count => _,
            s = in(reg) $t.sums,
            l = in(reg) LANE_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// As `full_tile` for 16 rows.
macro_rules! half_tile {
    ($t:ident, $count:ident, [$($step:expr,)*], $($inputs:tt)*) => {
        asm!(
            "test {add:e}, {add:e}",
            "jz 2f",
            "tileloadd tmm0, [{s} + {l}]",
            "tileloadd tmm1, [{s} + {l} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "3:",
            $($step,)*
            "dec {count}",
            "jnz 3b",
            "tilestored [{s} + {l}], tmm0",
            "tilestored [{s} + {l} + 64], tmm1",
            $($inputs)*
            add = in(reg) u32::from($t.add),
            count = inout(reg) $count => _,
            s = in(reg) $t.sums,
            l = in(reg) LANE_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// `count` times sixteen words for 32 rows and 32 lanes.
unsafe fn steps(t: &Tile, count: usize) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        full_tile!(
            t,
            count,
            [
                "tileloadd tmm4, [{w} + {ldw}]",
                "tileloadd tmm6, [{x} + {l}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{x} + {l} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{below} + {ldw}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {w}, 64",
                "add {below}, 64",
                "add {x}, 2048",
            ],
            w = inout(reg) t.w => _,
            below = inout(reg) t.w.add(16 * t.ldw) => _,
            ldw = in(reg) 4 * t.ldw,
            x = inout(reg) t.x => _,
        );
    }
}

/// The same for inputs that are sums of three parts.
unsafe fn split_steps(t: &Tile, count: usize) {
    debug_assert_eq!(t.parts, PARTS);
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        full_tile!(
            t,
            count,
            [
                "tileloadd tmm4, [{w} + {ldw}]",
                "tileloadd tmm5, [{below} + {ldw}]",
                lanes!("x0"),
                multiply!(),
                lanes!("x1"),
                multiply!(),
                lanes!("x2"),
                multiply!(),
                "add {w}, 64",
                "add {below}, 64",
                "add {x0}, 2048",
                "add {x1}, 2048",
                "add {x2}, 2048",
            ],
            w = inout(reg) t.w => _,
            below = inout(reg) t.w.add(16 * t.ldw) => _,
            ldw = in(reg) 4 * t.ldw,
            x0 = inout(reg) t.x => _,
            x1 = inout(reg) t.x.add(t.part) => _,
            x2 = inout(reg) t.x.add(2 * t.part) => _,
        );
    }
}

/// Where a tile of numbers in three parts reads and writes. Rows stand in blocks of sixteen words of sixteen rows, one
/// under the other for as many rows as the tile has, so that what is read lies together.
#[derive(Clone, Copy)]
pub(crate) struct SplitTile {
    /// `[middle, high]` of all rows, and `[high, low]`.
    pub(crate) w: [*const u32; 2],
    /// A panel of `[low, high, middle, high]`, each as that of a [`Tile`].
    pub(crate) x: *const u32,
    /// Words of a part, whole eights.
    pub(crate) part: usize,
    /// As of a [`Tile`].
    pub(crate) sums: *mut f32,
    /// Adds to the sums that are there.
    pub(crate) add: bool,
}

/// The tile of `rows` rows, 16 or [`TILE_ROWS`], whose six largest products of parts are added up two by two:
/// `[middle, high]` by `[middle, high]` and by `[high, middle]`, `[high, low]` by `[low, high]`.
///
/// # Safety
/// Rows, panel and sums must be there and on cache lines, and [`Registers`] held by this thread.
pub(crate) unsafe fn split_rows(rows: usize, t: &SplitTile) {
    debug_assert!(t.part.is_multiple_of(STEP / 2) && (rows == 16 || rows == TILE_ROWS));
    let count = 2 * t.part / STEP;
    // SAFETY: as the caller's.
    unsafe {
        let x = [2, 1, 0].map(|part| t.x.add(part * t.part * PANEL));
        if rows == TILE_ROWS {
            split_by_split_steps(t, x, count);
        } else {
            split_by_split_half_steps(t, x, count);
        }
    }
}

/// The loop of [`split_rows`] for 32 rows.
unsafe fn split_by_split_steps(t: &SplitTile, x: [*const u32; 3], count: usize) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        full_tile!(
            t,
            count,
            [
                "tileloadd tmm4, [{w0} + {k}]",
                "tileloadd tmm5, [{w0} + {k} + 1024]",
                lanes!("x0"),
                multiply!(),
                lanes!("x1"),
                multiply!(),
                "tileloadd tmm4, [{w1} + {k}]",
                "tileloadd tmm5, [{w1} + {k} + 1024]",
                lanes!("x2"),
                multiply!(),
                "add {w0}, 2048",
                "add {w1}, 2048",
                "add {x0}, 2048",
                "add {x1}, 2048",
                "add {x2}, 2048",
            ],
            w0 = inout(reg) t.w[0] => _,
            w1 = inout(reg) t.w[1] => _,
            k = in(reg) 64_usize,
            x0 = inout(reg) x[0] => _,
            x1 = inout(reg) x[1] => _,
            x2 = inout(reg) x[2] => _,
        );
    }
}

/// The loop of [`split_rows`] for 16 rows.
unsafe fn split_by_split_half_steps(t: &SplitTile, x: [*const u32; 3], count: usize) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        half_tile!(
            t,
            count,
            [
                "tileloadd tmm4, [{w0} + {k}]",
                lanes!("x0"),
                multiply_half!(),
                lanes!("x1"),
                multiply_half!(),
                "tileloadd tmm4, [{w1} + {k}]",
                lanes!("x2"),
                multiply_half!(),
                "add {w0}, 1024",
                "add {w1}, 1024",
                "add {x0}, 2048",
                "add {x1}, 2048",
                "add {x2}, 2048",
            ],
            w0 = inout(reg) t.w[0] => _,
            w1 = inout(reg) t.w[1] => _,
            k = in(reg) 64_usize,
            x0 = inout(reg) x[0] => _,
            x1 = inout(reg) x[1] => _,
            x2 = inout(reg) x[2] => _,
        );
    }
}

/// As [`steps`], for 16 rows.
unsafe fn half_steps(t: &Tile, count: usize) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        half_tile!(
            t,
            count,
            [
                "tileloadd tmm4, [{w} + {ldw}]",
                "tileloadd tmm6, [{x} + {l}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{x} + {l} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {w}, 64",
                "add {x}, 2048",
            ],
            w = inout(reg) t.w => _,
            ldw = in(reg) 4 * t.ldw,
            x = inout(reg) t.x => _,
        );
    }
}
