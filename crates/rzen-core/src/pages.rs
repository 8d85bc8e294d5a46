//! Memory in large pages.

/// Asks the system to back a buffer by large pages (2 MiB instead of 4 KiB) where it would do so on request.
///
/// A decoded photo fills 36 MB that the system hands out page by page, at a cost near that of decoding it. To be called
/// before the buffer is first written. Nothing but speed depends on it; it does nothing for small buffers and
/// outside of Linux.
pub fn prefer_large_pages<T>(buffer: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let bytes = buffer.as_mut_ptr_range();
        let start = (bytes.start as usize).next_multiple_of(PAGE);
        let end = bytes.end as usize / PAGE * PAGE;
        if let Some(length) = end.checked_sub(start).filter(|length| *length > 0) {
            let at = bytes.start.wrapping_byte_add(start - bytes.start as usize);
            // SAFETY: the range lies in the buffer, and the advice changes none of its bytes. Where the system knows
            // no large pages it refuses, and the buffer stays as it was.
            let _refused =
                unsafe { rustix::mm::madvise(at.cast(), length, rustix::mm::Advice::LinuxHugepage) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_as_they_are() {
        for length in [0, 1, 4095, 2 << 20, (9 << 20) + 5] {
            let mut buffer = vec![7u8; length];
            prefer_large_pages(&mut buffer);
            assert!(buffer.iter().all(|byte| *byte == 7));
            let mut numbers = vec![0.0f32; length];
            prefer_large_pages(&mut numbers);
            assert!(numbers.iter().all(|number| *number == 0.0));
        }
    }
}
