//! The macro behind the table of methods in [`crate::method`].
//!
//! Each entry of the table becomes a struct with its codec, a variant of `Method`, and a row of `TABLE`. So the
//! wire format of a method is defined in one place.

macro_rules! methods {
    ($(
        $(#[$class_doc:meta])*
        class $class:ident = $class_id:literal {
            $(
                $(#[$doc:meta])*
                $name:ident / $variant:ident $(<$lt:lifetime>)? = $id:literal
                $(, $content:ident)? $(=> $($reply:ident)|+)?
                { $($field:ident: $type:ty),* $(,)? }
            )*
        }
    )*) => {
        $(
            $(#[$class_doc])*
            pub mod $class {
                use super::*;

                $(
                    $(#[$doc])*
                    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
                    #[allow(clippy::exhaustive_structs, reason = "the specification is frozen")]
                    pub struct $name $(<$lt>)? {
                        $(
                            #[doc = concat!("The field `", stringify!($field), "` of the specification.")]
                            pub $field: $type,
                        )*
                    }

                    impl $(<$lt>)? crate::method::sealed::Sealed for $name $(<$lt>)? {}

                    impl $(<$lt>)? $name $(<$lt>)? {
                        pub(super) const FIELDS: &'static [FieldSpec] = &[$(
                            FieldSpec {
                                name: stringify!($field),
                                domain: crate::wire::domain::<$type>(),
                                reserved: crate::wire::is_reserved::<$type>(),
                            },
                        )*];
                    }

                    impl<'m> WireMethod<'m> for methods!(@local $name 'm $($lt)?) {
                        const ID: MethodId = MethodId { class: $class_id, method: $id };

                        #[inline]
                        fn decode(arguments: &'m [u8]) -> Result<Self, Malformed> {
                            #[allow(unused_mut, reason = "some methods have no arguments")]
                            let mut reader = Reader::new(arguments);
                            let method = Self {
                                $($field: crate::wire::Field::<'m>::read(&mut reader)?,)*
                            };
                            reader.finish()?;
                            Ok(method)
                        }

                        #[inline]
                        fn encode(&self, out: &mut Vec<u8>) {
                            #[allow(unused_mut, reason = "some methods have no arguments")]
                            let mut writer = Writer::new(out);
                            writer.bytes(&Self::ID.to_bytes());
                            $(crate::wire::Field::<'m>::write(&self.$field, &mut writer);)*
                        }
                    }
                )*
            }
        )*

        /// A method of any class.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Method<'a> {
            $($(
                #[doc = concat!("`", stringify!($class), ".", stringify!($name), "`")]
                $variant(methods!(@struct $class $name 'a $($lt)?)),
            )*)*
        }

        impl<'a> Method<'a> {
            /// Decodes the payload of a method frame: class id, method id, arguments.
            ///
            /// # Errors
            /// [`Malformed::UnknownMethod`], [`Malformed::Truncated`] or [`Malformed::TrailingBytes`].
            #[inline]
            pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
                let (id, arguments) = MethodId::split(payload)?;
                match (id.class, id.method) {
                    $($(
                        ($class_id, $id) => WireMethod::decode(arguments).map(Self::$variant),
                    )*)*
                    (class, method) => Err(Malformed::UnknownMethod { class, method }),
                }
            }

            /// Appends the payload of a method frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $($(Self::$variant(method) => WireMethod::<'a>::encode(method, out),)*)*
                }
            }

            /// Returns the class id and method id.
            pub const fn id(&self) -> MethodId {
                match self {
                    $($(Self::$variant(_) => MethodId { class: $class_id, method: $id },)*)*
                }
            }
        }

        $($(
            impl<'a> From<methods!(@struct $class $name 'a $($lt)?)> for Method<'a> {
                fn from(method: methods!(@struct $class $name 'a $($lt)?)) -> Self {
                    Self::$variant(method)
                }
            }
        )*)*

        /// Every method as data, from the table that defines the codec.
        pub const TABLE: &[MethodSpec] = &[
            $($(
                MethodSpec {
                    id: MethodId { class: $class_id, method: $id },
                    class: stringify!($class),
                    name: stringify!($name),
                    content: methods!(@content $($content)?),
                    replies: &[$($(stringify!($reply)),+)?],
                    fields: $class::$name::FIELDS,
                },
            )*)*
        ];
    };
    (@struct $class:ident $name:ident $a:lifetime $lt:lifetime) => { $class::$name<$a> };
    (@struct $class:ident $name:ident $a:lifetime) => { $class::$name };
    (@content content) => { true };
    (@content) => { false };
    (@local $name:ident $m:lifetime $lt:lifetime) => { $name<$m> };
    (@local $name:ident $m:lifetime) => { $name };
}

pub(crate) use methods;
