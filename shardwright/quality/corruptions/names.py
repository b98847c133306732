"""The variables of a file, and everywhere they stand: what can be renamed and still be the same.

Only variables and parameters are taken: functions, classes and members are known to other files.
A name that is a variable in one place and known to others elsewhere in the file stays as well.
"""

from shardwright.quality.corruptions.trees import Piece, Source

_SPOKEN_FOR = frozenset({b"self", b"cls", b"this", b"super", b"main", b"_", b"arguments"})

# Where a name is declared: the end of the path from the root, of role:kind and at last the name's
# own role. Roles and kinds are those of the grammars.
_SCRIPT_DECLARED = (
    *(":variable_declarator/name", ":formal_parameters/", ":assignment_pattern/left"),
    *(":required_parameter/pattern", ":optional_parameter/pattern", ":arrow_function/parameter"),
    *(":array_pattern/", ":rest_pattern/", ":pair_pattern/value", ":for_in_statement/left"),
    ":catch_clause/parameter",
)
_C_DECLARED = (
    *(":init_declarator/declarator", ":declaration/declarator", ":pointer_declarator/declarator"),
    *(":array_declarator/declarator", ":parameter_declaration/declarator"),
    *(":reference_declarator/", ":optional_parameter_declaration/declarator"),
    *(":for_range_loop/declarator", ":structured_binding_declarator/"),
)
_DECLARED = {
    "C": _C_DECLARED,
    "C++": _C_DECLARED,
    "Go": (
        *(":short_var_declaration/left:expression_list/", ":range_clause/left:expression_list/"),
        *(":var_spec/name", ":const_spec/name", ":parameter_declaration/name"),
        *(":variadic_parameter_declaration/name", ":receive_statement/left:expression_list/"),
    ),
    "Java": (
        ":local_variable_declaration/declarator:variable_declarator/name",
        *(":spread_parameter/:variable_declarator/name", ":formal_parameter/name"),
        *(":catch_formal_parameter/name", ":enhanced_for_statement/name", ":resource/name"),
        *(":inferred_parameters/", ":lambda_expression/parameters"),
    ),
    "JavaScript": _SCRIPT_DECLARED,
    "Python": (
        *(":assignment/left", ":pattern_list/", ":tuple_pattern/", ":list_pattern/"),
        *(":for_statement/left", ":for_in_clause/left", ":as_pattern_target/"),
        *(":named_expression/name", ":parameters/", ":lambda_parameters/", ":typed_parameter/"),
        *(":default_parameter/name", ":typed_default_parameter/name"),
        *(":list_splat_pattern/", ":dictionary_splat_pattern/"),
    ),
    "Rust": (
        *(":let_declaration/pattern", ":parameter/pattern", ":mut_pattern/", ":ref_pattern/"),
        *(":tuple_pattern/", ":for_expression/pattern", ":closure_parameters/"),
        *(":reference_pattern/", ":tuple_struct_pattern/", ":captured_pattern/"),
    ),
    "TypeScript": _SCRIPT_DECLARED,
}

# Where a name is another thing that happens to be spelled alike.
_APART = {
    "Java": (
        *(":field_access/field", ":method_invocation/name", ":method_declaration/name"),
        *(":labeled_statement/", ":break_statement/", ":continue_statement/"),
        *(":element_value_pair/key", ":scoped_identifier/name", ":scoped_identifier/scope"),
    ),
    "Python": (":attribute/attribute",),
}

# Where a name is known to others, or to something that is not renamed along.
_SCRIPT_KEPT = (
    *(":import_specifier/name", ":import_specifier/alias", ":import_clause/"),
    *(":namespace_import/", ":export_specifier/name", ":export_specifier/alias"),
    *(":function_declaration/name", ":class_declaration/name", ":enum_declaration/name"),
    *(":export_statement/declaration:lexical_declaration/:variable_declarator/name",),
    *(":export_statement/declaration:variable_declaration/:variable_declarator/name",),
)
_C_KEPT = (
    *(":function_declarator/declarator", ":preproc_def/name", ":preproc_function_def/name"),
    *(":preproc_params/", ":preproc_defined/", ":preproc_ifdef/name", ":enumerator/name"),
    *(":translation_unit/:declaration/declarator",),
    *(":translation_unit/:declaration/declarator:init_declarator/declarator",),
    *(":translation_unit/:declaration/declarator:array_declarator/declarator",),
    *(":qualified_identifier/name", ":using_declaration/"),
)
_KEPT = {
    "C": _C_KEPT,
    "C++": _C_KEPT,
    "Go": (
        *(":function_declaration/name", ":keyed_element/key:literal_element/"),
        *(":source_file/:var_declaration/:var_spec/name",),
        *(":var_declaration/:var_spec_list/:var_spec/name", ":const_declaration/:const_spec/name"),
    ),
    "Java": (
        *(":field_declaration/declarator:variable_declarator/name", ":enum_constant/name"),
        *(":class_declaration/name", ":constant_declaration/declarator:variable_declarator/name"),
    ),
    "JavaScript": _SCRIPT_KEPT,
    "Python": (
        *(":keyword_argument/name", ":dotted_name/", ":aliased_import/alias"),
        *(":keyword_pattern/", ":function_definition/name", ":class_definition/name"),
        ":class_definition/body:block/:expression_statement/:assignment/left",
    ),
    "Rust": (
        *(":function_item/name", ":static_item/name", ":const_item/name", ":use_declaration/"),
        *(":shorthand_field_initializer/", ":scoped_identifier/name", ":macro_invocation/macro"),
        ":tuple_struct_pattern/type",
    ),
    "TypeScript": _SCRIPT_KEPT,
}
# A variable that gives a member its name, or takes it from one.
_SHORTHANDS = frozenset(
    {
        "shorthand_property_identifier",
        "shorthand_property_identifier_pattern",
        "shorthand_field_identifier",
    }
)
_LEVELS = 4


def find_variables(source: Source) -> dict[bytes, list[Piece]]:
    """Every variable and parameter by name, with all places where it stands.

    Args:
        source: A text of one of the languages of the tables.

    Returns:
        Names in the order in which they first stand in the file.
    """
    language = source.language or ""
    declared, kept = _DECLARED.get(language, ()), _KEPT.get(language, ())
    apart = _APART.get(language, ())
    places: dict[bytes, list[Piece]] = {}
    known = set(_SPOKEN_FOR)
    variables = set()
    for piece in source.pieces:
        if piece.kind in _SHORTHANDS:
            known.add(source.text(piece))
        if piece.kind != "identifier" or piece.start == piece.stop:
            continue
        path = _path(piece)
        if apart and path.endswith(apart):
            continue
        name = source.text(piece)
        places.setdefault(name, []).append(piece)
        if path.endswith(kept):
            known.add(name)
        elif path.endswith(declared):
            variables.add(name)
    return {
        name: found
        for name, found in places.items()
        if name in variables
        and name not in known
        and not name.startswith(b"__")
        # Rust: in a pattern what begins in upper case is a constant
        and not (language == "Rust" and name[:1].isupper())
    }


def _path(piece: Piece) -> str:
    steps = [piece.role]
    above = piece.parent
    for _ in range(_LEVELS):
        if above is None:
            break
        steps.append(f"{above.role}:{above.kind}")
        above = above.parent
    return "/".join(reversed(steps))
