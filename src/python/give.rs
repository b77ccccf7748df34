//! Anything that serde can write, as plain Python values: dicts, lists, numbers, text, None.
//!
//! What JSON would say, without the JSON: structures and maps are dicts, enums are their names (or a dict of one entry
//! around what they hold), and a number that is not finite is None, since a reader of JSON could not tell it either.
//!
//! Limit: keys are text, and what is not finite becomes None: infinity and not-a-number cannot be told apart.

use std::convert::Infallible;
use std::fmt;

use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyList, PyString};
use serde::ser::{self, Serialize};

/// What Python gets, and what its stub says of it.
macro_rules! given {
    ($( $(#[doc = $doc:literal])* $name:ident $says:literal )*) => { $(
        $(#[doc = $doc])*
        pub struct $name<'py>(pub Bound<'py, PyAny>);

        impl<'py> IntoPyObject<'py> for $name<'py> {
            type Target = PyAny;
            type Output = Bound<'py, PyAny>;
            type Error = Infallible;

            const OUTPUT_TYPE: PyStaticExpr = PyStaticExpr::Name { id: $says };

            fn into_pyobject(self, _: Python<'py>) -> Result<Self::Output, Self::Error> {
                Ok(self.0)
            }
        }
    )* };
}

given! {
    /// A table: arrays, or codes and labels, by name; and what is said of it, as JSON.
    Payload "_Payload"
    /// Named values.
    Facts "dict[str, Any]"
    /// Named values, a dict a row.
    Rows "list[dict[str, Any]]"
}

/// Named values in Python.
pub fn facts<'py, T: Serialize + ?Sized>(py: Python<'py>, value: &T) -> PyResult<Facts<'py>> {
    to_python(py, value).map(Facts)
}

/// Rows of named values in Python.
pub fn rows<'py, T: Serialize + ?Sized>(py: Python<'py>, value: &T) -> PyResult<Rows<'py>> {
    to_python(py, value).map(Rows)
}

/// A value in Python.
pub fn to_python<'py, T: Serialize + ?Sized>(py: Python<'py>, value: &T) -> PyResult<Bound<'py, PyAny>> {
    value.serialize(Giver(py)).map_err(|e| e.0)
}

/// What went wrong in Python, or what a type says of itself.
#[derive(Debug)]
struct Refused(PyErr);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(text: T) -> Refused {
        Refused(super::errors::InternalError::new_err((text.to_string(),)))
    }
}

impl From<PyErr> for Refused {
    fn from(e: PyErr) -> Refused {
        Refused(e)
    }
}

type Given<'py> = Result<Bound<'py, PyAny>, Refused>;

#[derive(Clone, Copy)]
struct Giver<'py>(Python<'py>);

/// A list under way, and the name of the variant that it stands in.
struct Items<'py> {
    list: Bound<'py, PyList>,
    variant: Option<&'static str>,
}

/// A dict under way, the key whose value comes next, and the name of the variant that it stands in.
struct Entries<'py> {
    dict: Bound<'py, PyDict>,
    key: Option<Bound<'py, PyAny>>,
    variant: Option<&'static str>,
}

impl<'py> Giver<'py> {
    fn items(self, variant: Option<&'static str>) -> Items<'py> {
        Items { list: PyList::empty(self.0), variant }
    }

    fn entries(self, variant: Option<&'static str>) -> Entries<'py> {
        Entries { dict: PyDict::new(self.0), key: None, variant }
    }
}

/// What a variant holds under its name; what is no variant as it is.
fn under<'py>(variant: Option<&'static str>, inner: Bound<'py, PyAny>) -> Given<'py> {
    let Some(variant) = variant else { return Ok(inner) };
    let dict = PyDict::new(inner.py());
    dict.set_item(variant, inner)?;
    Ok(dict.into_any())
}

macro_rules! plainly {
    ($($name:ident: $type:ty),*) => { $(
        fn $name(self, value: $type) -> Given<'py> {
            Ok(value.into_pyobject(self.0).map_err(PyErr::from)?.to_owned().into_any())
        }
    )* };
}

impl<'py> ser::Serializer for Giver<'py> {
    type Ok = Bound<'py, PyAny>;
    type Error = Refused;
    type SerializeSeq = Items<'py>;
    type SerializeTuple = Items<'py>;
    type SerializeTupleStruct = Items<'py>;
    type SerializeTupleVariant = Items<'py>;
    type SerializeMap = Entries<'py>;
    type SerializeStruct = Entries<'py>;
    type SerializeStructVariant = Entries<'py>;

    plainly! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_char: char,
        serialize_str: &str
    }

    fn serialize_f32(self, value: f32) -> Given<'py> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Given<'py> {
        if value.is_finite() { Ok(PyFloat::new(self.0, value).into_any()) } else { self.serialize_none() }
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Given<'py> {
        Ok(PyList::new(self.0, bytes)?.into_any())
    }

    fn serialize_none(self) -> Given<'py> {
        Ok(self.0.None().into_bound(self.0))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Given<'py> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Given<'py> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Given<'py> {
        self.serialize_none()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Given<'py> {
        Ok(PyString::intern(self.0, variant).into_any())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Given<'py> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Given<'py> {
        under(Some(variant), value.serialize(self)?)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'py>, Refused> {
        Ok(self.items(None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'py>, Refused> {
        Ok(self.items(None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'py>, Refused> {
        Ok(self.items(None))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'py>, Refused> {
        Ok(self.items(Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'py>, Refused> {
        Ok(self.entries(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries<'py>, Refused> {
        Ok(self.entries(None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries<'py>, Refused> {
        Ok(self.entries(Some(variant)))
    }
}

macro_rules! lists {
    ($($kind:ident $item:ident),*) => { $(
        impl<'py> ser::$kind for Items<'py> {
            type Ok = Bound<'py, PyAny>;
            type Error = Refused;

            fn $item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                Ok(self.list.append(value.serialize(Giver(self.list.py()))?)?)
            }

            fn end(self) -> Given<'py> {
                under(self.variant, self.list.into_any())
            }
        }
    )* };
}

lists! {
    SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
}

macro_rules! structures {
    ($($kind:ident),*) => { $(
        impl<'py> ser::$kind for Entries<'py> {
            type Ok = Bound<'py, PyAny>;
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Refused> {
                let py = self.dict.py();
                Ok(self.dict.set_item(PyString::intern(py, key), value.serialize(Giver(py))?)?)
            }

            fn end(self) -> Given<'py> {
                under(self.variant, self.dict.into_any())
            }
        }
    )* };
}

structures! { SerializeStruct, SerializeStructVariant }

impl<'py> ser::SerializeMap for Entries<'py> {
    type Ok = Bound<'py, PyAny>;
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        let key = key.serialize(Giver(self.dict.py()))?;
        // As in JSON every key is text.
        self.key = Some(if key.is_instance_of::<PyString>() { key } else { key.str()?.into_any() });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        let value = value.serialize(Giver(self.dict.py()))?;
        match self.key.take() {
            Some(key) => Ok(self.dict.set_item(key, value)?),
            None => Err(ser::Error::custom("a value without a key")),
        }
    }

    fn end(self) -> Given<'py> {
        under(self.variant, self.dict.into_any())
    }
}
