//! What the processor can do.

use std::sync::OnceLock;

/// Instructions that kernels use where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// AVX2 and FMA.
    pub avx2: bool,
    /// AVX-512 F, BW, DQ and VL.
    pub avx512: bool,
    /// Products of bf16 pairs in AVX-512.
    pub avx512_bf16: bool,
    /// Matrix registers for bf16, which the system has to permit.
    pub amx: bool,
}

/// What this processor has, asked once.
pub fn features() -> Features {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    *FEATURES.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Features {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let avx512_bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
    let amx = avx512_bf16 && has_amx() && crate::matmul::amx_permitted();
    Features { avx2, avx512, avx512_bf16, amx }
}

/// AMX-TILE and AMX-BF16, and a system that saves the registers; there is no stable macro to ask for them.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const SAVED: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & BF16_AND_TILE != BF16_AND_TILE {
        return false;
    }
    // SAFETY: AVX-512 is there, and with it the instruction.
    unsafe { _xgetbv(0) & SAVED == SAVED }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Features {
    Features::default()
}
