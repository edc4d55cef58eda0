"""What people added to a PDF page: values of form fields, notes, text typed onto it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pypdfium2 as pdfium
from pypdfium2 import raw

CHECKED = (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON)
SILENT = (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_WIDGET)


def added_texts(pdf: pdfium.PdfDocument, page: pdfium.PdfPage) -> tuple[list[str], bool]:
    """What is written in notes and fields, a line each, and whether the page has fields.

    Much of it is drawn on the page, too, once `FPDFPage_Flatten` was called; what is not, only stands here.
    """
    found, fields = [], False
    for number in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        if kind == raw.FPDF_ANNOT_WIDGET and pdf.formenv:
            fields = True
            found.append(_field(pdf, annotation))
        elif kind not in SILENT and not raw.FPDFAnnot_GetFlags(annotation) & raw.FPDF_ANNOT_FLAG_HIDDEN:
            found.append(_text(lambda *buffer, a=annotation: raw.FPDFAnnot_GetStringValue(a, b"Contents", *buffer)))
        raw.FPDFPage_CloseAnnot(annotation)
    return [text for text in found if text.strip()], fields


def _field(pdf: pdfium.PdfDocument, annotation) -> str:
    """The value of a text field or list; the name of a box that is ticked."""
    name = _text(lambda *buffer: raw.FPDFAnnot_GetFormFieldName(pdf.formenv, annotation, *buffer))
    kind = raw.FPDFAnnot_GetFormFieldType(pdf.formenv, annotation)
    value = _text(lambda *buffer: raw.FPDFAnnot_GetFormFieldValue(pdf.formenv, annotation, *buffer))
    if kind in CHECKED:
        if not raw.FPDFAnnot_IsChecked(pdf.formenv, annotation):
            return ""
        return f"[x] {name}" + (f": {value}" if value not in ("", "On", "Yes") else "")
    if kind in (raw.FPDF_FORMFIELD_PUSHBUTTON, raw.FPDF_FORMFIELD_SIGNATURE):
        return ""
    return value


def _text(read: Callable[..., int]) -> str:
    """A text of pdfium, which first says how many bytes it has."""
    size = read(None, 0)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    read(ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", errors="replace")
