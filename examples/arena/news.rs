#![forbid(unsafe_code)]
//! What the server tells whoever has started it: one line for each thing that has happened, with
//! tabs between its parts.

macro_rules! news {
    ($($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, PartialEq)]
            pub(crate) struct $name { $($(#[$what])* pub(crate) $field: $type,)* }

            impl From<$name> for News {
                fn from(news: $name) -> News {
                    News::$name(news)
                }
            }
        )*

        /// A piece of news.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum News { $($name($name),)* }

        impl News {
            /// One line, without its end.
            pub(crate) fn line(&self) -> String {
                match self {
                    $(News::$name(news) => {
                        let mut line = stringify!($name).to_owned();
                        $(
                            line.push('\t');
                            line.push_str(&news.$field.to_string().replace(char::is_control, " "));
                        )*
                        line
                    })*
                }
            }

            /// Reads a line; `None` where it is none of ours.
            pub(crate) fn parse(line: &str) -> Option<News> {
                let mut parts = line.trim_end_matches('\n').split('\t');
                match parts.next()? {
                    $(stringify!($name) => {
                        Some(News::$name($name { $($field: parts.next()?.parse().ok()?,)* }))
                    })*
                    _ => None,
                }
            }
        }
    };
}

news! {
    /// The server is up; the world is loaded, and clients may come.
    Ready {
        pid: u32,
        port: u16,
        /// A world was found in the directory; else one has been made.
        resumed: bool,
        tick: u64,
        /// The snapshot it goes on from.
        head: u64,
        /// Slot pages that opening did not believe.
        rejected: usize,
        /// The last server here had closed its files.
        clean: bool,
        units: usize,
        rules: u32,
    }

    /// A tick has happened and is published.
    Tick {
        tick: u64,
        head: u64,
        /// All work of the tick, in us.
        took: u64,
        /// `capture` alone, which is all that the tick stands still for its snapshot, in ns.
        pause: u64,
        /// From its start until the snapshot was seen to be published, with the making of views between,
        /// in ns.
        published: u64,
        /// Writing all of the state instead, in ns; 0 where it was not tried in this tick.
        whole: u64,
        /// Bytes of the snapshot, and how many were written for it rather than shared.
        bytes: u64,
        wrote: u64,
        /// The share of its pages that was written.
        dirty: f64,
        /// Bytes written for snapshots since the server's start.
        written: u64,
        /// Bytes of both files.
        files: u64,
        saves: u64,
        clients: usize,
        /// The newest snapshot on the disk; 0 for none.
        durable: u64,
    }

    /// Rules have gone in.
    Loaded {
        rules: u32,
        tick: u64,
        fingerprint: String,
        /// The gate and the start of the rules, in us.
        took: u64,
    }

    /// Rules have failed and what they did is undone.
    Undone {
        rules: u32,
        tick: u64,
        /// `refused`, `error` or `panic`.
        kind: String,
        words: String,
        /// Units and scores that differed from the snapshot when the rules had failed.
        units_hurt: usize,
        scores_hurt: usize,
        /// The same once the state was back.
        still_hurt: usize,
        /// The digest of the state now is the digest of what was saved before.
        same_digest: bool,
        to: u64,
        /// The rollback's own snapshot, which the clients are told.
        head: u64,
        /// From the failure to the state being back, in us.
        restored: u64,
        /// From the start of the tick to the state being back, in us.
        into_tick: u64,
        /// Clients connected, before and after.
        clients: usize,
        clients_after: usize,
        /// The rules in charge now.
        in_charge: u32,
    }

    /// Every client that was asked for the hash of its view has answered, or is gone.
    Census {
        /// `resync`, `join`, `steady` or `asked`.
        why: String,
        /// For a resync, the snapshot.
        head: u64,
        asked: usize,
        agreed: usize,
        differed: usize,
        lost: usize,
        /// From the question to the last answer, in us.
        took: u64,
    }
}
