//! The room of zones: free frames.
