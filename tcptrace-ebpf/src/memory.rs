//! Two ways to read the kernel's memory.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// The address of a kernel structure.
pub(crate) trait Memory: Copy {
    /// Reads the `T` that stands `offset` bytes into the structure; zero where nothing can be read.
    fn read<T: Copy + Default>(self, offset: u16) -> T;

    /// The structure that the pointer at `offset` leads to, if it is not NULL.
    fn follow(self, offset: u16) -> Option<Self>;

    /// The bit that stands `bit` bits into the structure.
    #[inline(always)]
    fn bit(self, bit: u16) -> bool {
        self.read::<u8>(bit / 8) >> (bit % 8) & 1 != 0
    }
}

/// A pointer whose type the verifier knows from BTF: reads are plain loads. The kernel turns those that
/// could fault (pointers found by following another) into loads that give 0.
#[derive(Clone, Copy)]
pub(crate) struct Typed(pub(crate) *const u8);

impl Memory for Typed {
    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u16) -> T {
        // SAFETY: the verifier accepts the load only if BTF has a field of that size there.
        unsafe { self.0.add(usize::from(offset)).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn follow(self, offset: u16) -> Option<Self> {
        // SAFETY: as above; a pointer loaded this way keeps its BTF type.
        let pointer = unsafe { self.0.add(usize::from(offset)).cast::<*const u8>().read_volatile() };
        if pointer.is_null() { None } else { Some(Self(pointer)) }
    }
}

/// A bare address, read by a helper that fails on a bad one.
#[derive(Clone, Copy)]
pub(crate) struct Untyped(pub(crate) u64);

impl Memory for Untyped {
    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u16) -> T {
        let mut value = T::default();
        let address = (self.0 + u64::from(offset)) as *const c_void;
        // SAFETY: the helper checks the address and fills all of `value`, with zeros if it cannot be read. Its
        // result is not looked at: a branch per read is more paths than the verifier of 5.10 will follow.
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address) };
        value
    }

    #[inline(always)]
    fn follow(self, offset: u16) -> Option<Self> {
        match self.read::<u64>(offset) {
            0 => None,
            address => Some(Self(address)),
        }
    }
}
