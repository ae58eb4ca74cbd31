//! Descriptors that close themselves. The standard library's need the standard library.
#![allow(unsafe_code)]

use core::marker::PhantomData;

/// A descriptor's number.
pub(crate) type RawFd = i32;

/// A descriptor that is ours and is closed when dropped.
#[derive(Debug)]
pub(crate) struct OwnedFd(RawFd);

impl OwnedFd {
    /// Takes what a system call has just made.
    ///
    /// # Safety
    /// The descriptor is open and nobody else closes it.
    pub(crate) unsafe fn from_raw_fd(fd: RawFd) -> Self {
        Self(fd)
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        crate::os::close(self.0);
    }
}

/// A descriptor that somebody else keeps open meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BorrowedFd<'a>(RawFd, PhantomData<&'a OwnedFd>);

impl BorrowedFd<'_> {
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// What has a descriptor.
pub(crate) trait AsFd {
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd(self.0, PhantomData)
    }
}

impl AsFd for BorrowedFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self
    }
}

impl<T: AsFd> AsFd for &T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self).as_fd()
    }
}
