//! What a publisher sends through Redis or HTTP, read into an [`Event`](super::event::Event).
