//! The heaps of the C library: how many there are, and what they keep.

/// Lets the C library have one heap for each processor, and at least two, instead of eight: messages are allocated by the
/// thread that reads them and freed by the one that stores them, and what each heap keeps for itself
/// costs time and memory. `MALLOC_ARENA_MAX` decides where it is set. The caller calls it before other threads run.
/// Another C library than that of GNU is left alone.
pub fn limit() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    limit_gnu();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no safe way to set this")]
#[expect(clippy::disallowed_methods, reason = "a setting of the C library")]
fn limit_gnu() {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if let Ok(heaps) = i32::try_from(processors.max(2))
        && std::env::var_os("MALLOC_ARENA_MAX").is_none()
    {
        // SAFETY: it takes two numbers, and the caller runs no other thread yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) };
    }
}

/// Returns freed memory to the system (GNU C library only). It is called after work that needs much more memory than
/// what follows.
pub fn release_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    release_freed_gnu();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no safe way to do this")]
fn release_freed_gnu() {
    // SAFETY: it takes a number, and may be called at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}
