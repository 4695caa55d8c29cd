//! Closed label sets: enums that know their name, all their values, and their position among them.

/// One label: an enum, made by [`label!`](crate::label).
pub trait Label: Copy + 'static {
    /// The label's name, such as `transport`.
    const NAME: &'static str;
    /// Every value, in the order of [`index`](Self::index).
    const ALL: &'static [Self];

    /// The value as it is exported.
    fn as_str(self) -> &'static str;

    /// The position in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

/// The labels of one metric: nothing, one [`Label`], several as a tuple (all combinations), or an enum
/// of the combinations that exist, made by [`label_set!`](crate::label_set).
pub trait LabelSet: Copy + 'static {
    /// The names of the labels.
    fn names() -> Vec<&'static str>;

    /// Every value, in the order of [`index`](Self::index).
    fn all() -> Vec<Self>;

    /// The values of the labels, in the order of [`names`](Self::names).
    fn values(self) -> Vec<&'static str>;

    /// The position in [`all`](Self::all).
    fn index(self) -> usize;
}

impl LabelSet for () {
    fn names() -> Vec<&'static str> {
        Vec::new()
    }

    fn all() -> Vec<Self> {
        vec![()]
    }

    fn values(self) -> Vec<&'static str> {
        Vec::new()
    }

    fn index(self) -> usize {
        0
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME]
    }

    fn all() -> Vec<Self> {
        A::ALL
            .iter()
            .flat_map(|a| B::ALL.iter().map(|b| (*a, *b)))
            .collect()
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.0.as_str(), self.1.as_str()]
    }

    fn index(self) -> usize {
        self.0.index() * B::ALL.len() + self.1.index()
    }
}

impl<A: Label, B: Label, C: Label> LabelSet for (A, B, C) {
    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME, C::NAME]
    }

    fn all() -> Vec<Self> {
        let rest = <(B, C)>::all();
        A::ALL
            .iter()
            .flat_map(|a| rest.iter().map(|(b, c)| (*a, *b, *c)))
            .collect()
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.0.as_str(), self.1.as_str(), self.2.as_str()]
    }

    fn index(self) -> usize {
        (self.0.index() * B::ALL.len() + self.1.index()) * C::ALL.len() + self.2.index()
    }
}

/// Declares an enum that is one label, with the text of each value.
///
/// ```
/// ops::label! {
///     /// What a datagram came over.
///     pub enum Transport: "transport" {
///         /// UDP.
///         Udp = "udp",
///         /// TCP.
///         Tcp = "tcp",
///     }
/// }
/// let registry = ops::metrics::Registry::new();
/// let requests = registry.counter_vec::<Transport>("requests_total", "Requests.").unwrap();
/// requests.with(Transport::Tcp).inc();
/// assert!(registry.render().contains("requests_total{transport=\"udp\"} 0"));
/// assert!(registry.render().contains("requests_total{transport=\"tcp\"} 1"));
/// ```
#[macro_export]
macro_rules! label {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident : $label:literal {
            $($(#[$variant_attribute:meta])* $variant:ident = $text:literal),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$variant_attribute])* $variant),+
        }

        impl $crate::metrics::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl $crate::metrics::LabelSet for $name {
            fn names() -> Vec<&'static str> {
                vec![<Self as $crate::metrics::Label>::NAME]
            }

            fn all() -> Vec<Self> {
                <Self as $crate::metrics::Label>::ALL.to_vec()
            }

            fn values(self) -> Vec<&'static str> {
                vec![$crate::metrics::Label::as_str(self)]
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// Declares an enum of the combinations of several labels that exist, where not all do.
///
/// ```
/// ops::label_set! {
///     /// How a request was answered.
///     pub enum Answer: ("class", "code") {
///         /// As asked.
///         Success = ("success", "none"),
///         /// An attribute was not understood.
///         UnknownAttribute = ("error", "420"),
///     }
/// }
/// let registry = ops::metrics::Registry::new();
/// registry.counter_vec::<Answer>("answers_total", "Answers.").unwrap();
/// assert!(registry.render().contains("answers_total{class=\"error\",code=\"420\"} 0"));
/// ```
#[macro_export]
macro_rules! label_set {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident : ($($label:literal),+) {
            $($(#[$variant_attribute:meta])* $variant:ident = ($($text:literal),+)),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$variant_attribute])* $variant),+
        }

        impl $crate::metrics::LabelSet for $name {
            fn names() -> Vec<&'static str> {
                vec![$($label),+]
            }

            fn all() -> Vec<Self> {
                vec![$(Self::$variant),+]
            }

            fn values(self) -> Vec<&'static str> {
                match self {
                    $(Self::$variant => vec![$($text),+]),+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
