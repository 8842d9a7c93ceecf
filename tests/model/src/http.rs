//! Stand-ins: a request and its response are a number.

#[derive(Clone, Debug)]
pub(crate) struct Peer;

pub(crate) struct Request(pub(crate) usize);

pub(crate) struct Response(pub(crate) usize);

/// Every other response writes its body itself.
pub(crate) struct WriteBody;

impl Response {
    pub(crate) fn is_streamed(&self) -> bool {
        self.0 % 2 == 1
    }

    pub(crate) fn needs_writing(&self, _: bool) -> bool {
        self.is_streamed()
    }

    pub(crate) fn take_write(&mut self) -> Option<WriteBody> {
        Some(WriteBody)
    }
}
