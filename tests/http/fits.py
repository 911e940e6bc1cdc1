"""Whether requests and answers fit the API's description: JSON Schema as far as the description uses it, and a little stricter, since an
answer may have no member that is not described."""
import datetime
import re

KNOWN = {"type", "properties", "required", "additionalProperties", "propertyNames", "items", "enum", "const", "minLength", "maxLength", "minimum",
         "maximum", "minItems", "maxItems", "minProperties", "format", "pattern", "description", "default", "examples", "$ref"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def is_of(kind, value):
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])


class Description:
    def __init__(self, document):
        self.document = document
        self.paths = []
        for path, operations in document["paths"].items():
            pattern = re.sub(r"\\{\w+\\}", r"[^/]+", re.escape(path))
            self.paths.append((path.count("{"), re.compile(pattern + r"\Z"), operations))
        self.paths.sort(key=lambda one: one[0])  # the plainer one counts

    def operation(self, method, path):
        for _, pattern, operations in self.paths:
            if pattern.match(path) and method.lower() in operations:
                return operations[method.lower()]
        return None

    def resolve(self, one):
        while "$ref" in one:
            at = self.document
            for part in one["$ref"].lstrip("#/").split("/"):
                at = at[part]
            one = at
        return one

    def check(self, schema, value, where, is_answer):
        schema = self.resolve(schema)
        assert set(schema) <= KNOWN, "%s: %s is used and not understood here" % (where, set(schema) - KNOWN)
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        assert not kinds or any(is_of(kind, value) for kind in kinds), "%s is %r, not %s" % (where, value, " or ".join(kinds))
        assert "enum" not in schema or value in schema["enum"], "%s is %r, none of %s" % (where, value, schema["enum"])
        assert "const" not in schema or value == schema["const"], "%s is %r" % (where, value)
        if isinstance(value, str):
            self.check_text(schema, value, where)
        elif is_of("number", value):
            assert schema.get("minimum", value) <= value <= schema.get("maximum", value), "%s is %r" % (where, value)
        elif isinstance(value, list):
            assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), "%s has %d items" % (where, len(value))
            for i, item in enumerate(value):
                self.check(schema.get("items", {}), item, "%s[%d]" % (where, i), is_answer)
        elif isinstance(value, dict):
            self.check_object(schema, value, where, is_answer)

    @staticmethod
    def check_text(schema, value, where):
        n = len(value.encode("utf-8", "surrogatepass"))
        assert schema.get("minLength", 0) <= n and len(value) <= schema.get("maxLength", len(value)), "%s has %d bytes" % (where, n)
        assert re.search(schema.get("pattern", ""), value), "%s is %r" % (where, value)
        if schema.get("format") == "uuid":
            assert UUID.fullmatch(value), "%s is %r, no UUID" % (where, value)
        if schema.get("format") == "date-time":
            assert value.endswith("Z") and datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ"), "%s is %r" % (where, value)

    def check_object(self, schema, value, where, is_answer):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", not is_answer)
        missing = set(schema.get("required", ())) - set(value)
        assert not missing, "%s lacks %s" % (where, sorted(missing))
        assert len(value) >= schema.get("minProperties", 0), where
        for name, member in value.items():
            self.check(schema.get("propertyNames", {}), name, where + " names", is_answer)
            if name in properties:
                self.check(properties[name], member, where + "." + name, is_answer)
            elif isinstance(more, dict):
                self.check(more, member, where + "." + name, is_answer)
            else:
                assert more, "%s has %s, which is not described" % (where, name)

    def check_exchange(self, method, target, body, answer):
        """body: parsed JSON or None."""
        path, _, query = target.partition("?")
        operation = self.operation(method, path)
        what = "%s %s" % (method, path)
        if operation is None and method == "OPTIONS":
            assert answer.status in (204, 403, 404), what
            return
        if operation is None:
            assert answer.status in (404, 405, 400, 421), "%s is not described and gave %d" % (what, answer.status)
            return
        described = operation["responses"].get(str(answer.status))
        content = answer.headers.get("Content-Type", "").split(";")[0]
        if answer.status >= 400 or described is None:
            if content == "application/problem+json":
                self.check({"$ref": "#/components/schemas/Problem"}, answer.json, what, True)
            elif content == "application/json":
                name = "OpenAiProblem" if path.startswith("/v1/") else "SdProblem"
                self.check({"$ref": "#/components/schemas/" + name}, answer.json, what, True)
            else:
                assert answer.status in (304, 206, 416) or not answer.body, "%s: %d as %s is not described" % (what, answer.status, content)
            return
        contents = described.get("content", {})
        if not contents:
            assert not answer.body, "%s: a body is not described" % what
            return
        fitting = [one for one in contents if content == one or (one.endswith("/*") and content.startswith(one[:-1]))]
        assert fitting, "%s: the type %s is not described" % (what, content)
        if content != "application/json":
            return
        self.check(contents[fitting[0]]["schema"], answer.json, what, True)
        names = {self.resolve(one)["name"] for one in operation.get("parameters", []) if self.resolve(one)["in"] == "query"}
        asked = {pair.partition("=")[0] for pair in query.split("&") if pair}
        assert asked <= names, "%s took %s, which is not described" % (what, asked - names)
        accepted = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None and body != {} and method != "GET":
            assert accepted is not None or not operation.get("requestBody") and body in (None, {}), "%s took a body" % what
            self.check(accepted["schema"], body, what + " (request)", False)
