#![forbid(unsafe_code)]
//! Nothing of its own: the tests are beside this file, one failure each to guard against.
