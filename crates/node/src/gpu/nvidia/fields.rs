//! Readings of single NVLink ports. NVML takes the port's number in a field that the library's safe call leaves at 0.
#![expect(
    unsafe_code,
    reason = "the library has no safe call that names a port; this one fills a slice of plain values"
)]

use nvml_wrapper::{Device, Nvml, error::NvmlError};
use nvml_wrapper_sys::bindings::nvmlFieldValue_t;

/// The values of fields, each of a port. `None`: the port has no such value now. Those of a type other than unsigned
/// whole numbers aren't given.
pub(super) fn of_ports(nvml: &Nvml, device: &Device<'_>, asked: &[(u32, u32)]) -> Result<Vec<Option<u64>>, NvmlError> {
    let Ok(call) = &nvml.lib().nvmlDeviceGetFieldValues else {
        return Err(NvmlError::FunctionNotFound);
    };
    let one = |&(field, port): &(u32, u32)| {
        // SAFETY: all of its fields are numbers, for which zero is a value.
        let mut value: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
        value.fieldId = field;
        value.scopeId = port;
        value
    };
    let mut values: Vec<nvmlFieldValue_t> = asked.iter().map(one).collect();
    let count = i32::try_from(values.len()).unwrap_or(0);
    // SAFETY: the device is of this library, which lives as long as it does; the call writes to the first `count`
    // values, which are there.
    let code = unsafe { call(device.handle(), count, values.as_mut_ptr()) };
    nvml_wrapper::error::nvml_try(code)?;
    Ok(values
        .iter()
        .map(|value| {
            // SAFETY: every bit pattern is a value of each of the union's numbers; the type says which was written.
            let number = unsafe {
                match value.valueType {
                    UINT => u64::from(value.value.uiVal),
                    ULONG | ULONGLONG => value.value.ullVal,
                    _ => return None,
                }
            };
            (value.nvmlReturn == 0).then_some(number)
        })
        .collect())
}

/// `nvmlValueType_t`.
const UINT: u32 = 1;
const ULONG: u32 = 2;
const ULONGLONG: u32 = 3;
