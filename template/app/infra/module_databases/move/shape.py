# Rung's file: advancing to another stage may change it.
"""SQL that reads a table: the obstacles to its move, and the parts that must be the same."""

OBSTACLES = """
    SELECT concat_ws(' ', 'has', what, 'so', reason)
    FROM pg_class JOIN pg_roles AS owner ON owner.oid = relowner, LATERAL (
        SELECT string_agg(quote_ident(tgname), ', ') AS names FROM pg_trigger
        WHERE tgrelid = pg_class.oid AND tgenabled IN ('A', 'R')
    ) AS always, LATERAL (
        SELECT string_agg(quote_ident(attname), ', ') AS names
        FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
        WHERE attrelid = pg_class.oid AND 'oid'::regtype IN (atttypid, typbasetype)
        AND NOT attisdropped AND attnum > 0 AND EXISTS (SELECT FROM pg_largeobject_metadata)
    ) AS large, LATERAL (VALUES
        (EXISTS (SELECT FROM pg_inherits WHERE pg_class.oid IN (inhrelid, inhparent)),
            'a parent or children (INHERITS, PARTITION OF),',
            'the fence does not see each write. Detach them.'),
        (relpersistence <> 'p', 'no WAL (it is UNLOGGED or temporary),',
            'replication has no source. Run ALTER TABLE ... SET LOGGED.'),
        (NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary),
            'no primary key,', 'an UPDATE of a row cannot follow. Add one.'),
        (EXISTS (SELECT FROM pg_index
            WHERE indrelid = pg_class.oid AND indisprimary AND NOT indimmediate),
            'a DEFERRABLE primary key,',
            'each UPDATE would fail during the move. Make it NOT DEFERRABLE.'),
        (relreplident = 'n', 'REPLICA IDENTITY NOTHING,',
            'each UPDATE would fail during the move. Set REPLICA IDENTITY DEFAULT.'),
        (EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = pg_class.oid AND attgenerated <> '' AND NOT attisdropped
            AND (relreplident = 'f' OR EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid
                AND attnum = ANY(indkey) AND (indisprimary OR indisreplident)))),
            'a generated column in its REPLICA IDENTITY,',
            'each UPDATE would fail during the move. Set REPLICA IDENTITY DEFAULT or another key.'),
        (always.names IS NOT NULL, 'a trigger that is ENABLE ALWAYS or REPLICA (' || always.names
            || '),', 'it fires for replicated rows too. Run ALTER TABLE ... ENABLE TRIGGER.'),
        (row_security_active(pg_class.oid), 'row-level security for ' || quote_ident(current_user)
            || ',', 'this role may not see each row. Give it BYPASSRLS.'),
        (relrowsecurity AND relforcerowsecurity AND NOT (owner.rolsuper OR owner.rolbypassrls),
            'FORCE ROW LEVEL SECURITY,', 'its owner, as whom replication writes, may not. Let a'
            ' role with BYPASSRLS own it, and grant the app its rights.'),
        (large.names IS NOT NULL, 'large objects (' || large.names || '),',
            'their bytes would stay behind. Move them to a bytea column or to files.')
    ) AS obstacle (is_there, what, reason)
    WHERE pg_class.oid = to_regclass($1) AND relkind = 'r' AND is_there
"""

# One line for each part of a table or view. A difference would stop replication, or show after the
# cut.
PARTS = """
    WITH RECURSIVE this AS (SELECT * FROM pg_class WHERE oid = to_regclass($1)),
    types AS (
        SELECT atttypid AS oid FROM pg_attribute JOIN this ON attrelid = this.oid
        WHERE attnum > 0 AND NOT attisdropped
        UNION SELECT part FROM types JOIN pg_type USING (oid), LATERAL (
            SELECT unnest(ARRAY[typelem, typbasetype])
            UNION ALL SELECT rngsubtype FROM pg_range WHERE pg_type.oid IN (rngtypid, rngmultitypid)
            UNION ALL SELECT atttypid FROM pg_attribute
            WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
        ) AS parts (part)
    ), functions AS (
        SELECT refobjid AS oid FROM pg_depend JOIN this ON refclassid = 'pg_proc'::regclass
        WHERE objid IN (
            SELECT oid FROM pg_attrdef WHERE adrelid = this.oid
            UNION ALL SELECT oid FROM pg_constraint WHERE conrelid = this.oid
            UNION ALL SELECT oid FROM pg_trigger WHERE tgrelid = this.oid AND tgname <> 'move_fence'
            UNION ALL SELECT oid FROM pg_policy WHERE polrelid = this.oid
            UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = this.oid
        )
    )
    SELECT 'SCHEMA ' || relnamespace::regnamespace FROM this
    UNION ALL SELECT concat(attname, ' ', format_type(atttypid, atttypmod),
        ' ' || CASE WHEN atttypid = 'money'::regtype THEN current_setting('lc_monetary') END,
        ' COLLATE ' || CASE WHEN attcollation <> typcollation THEN attcollation::regcollation END,
        CASE WHEN attnotnull THEN ' NOT NULL' END,
        CASE attidentity WHEN 'a' THEN ' IDENTITY ALWAYS' WHEN 'd' THEN ' IDENTITY BY DEFAULT' END,
        CASE attgenerated WHEN 's' THEN ' STORED' WHEN 'v' THEN ' VIRTUAL' END,
        ' DEFAULT ' || pg_get_expr(adbin, adrelid))
    FROM pg_attribute JOIN this ON attrelid = this.oid JOIN pg_type ON pg_type.oid = atttypid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attnum > 0 AND NOT attisdropped
    UNION ALL SELECT replace(pg_get_indexdef(indexrelid), quote_ident(named.relname) || ' ON', 'ON')
    FROM pg_index JOIN this ON indrelid = this.oid JOIN pg_class AS named ON named.oid = indexrelid
    WHERE indisvalid
    UNION ALL SELECT 'REPLICA IDENTITY ' || pg_get_indexdef(indexrelid)
    FROM pg_index JOIN this ON indrelid = this.oid WHERE indisreplident
    UNION ALL SELECT pg_get_constraintdef(pg_constraint.oid)
    FROM pg_constraint JOIN this ON conrelid = this.oid WHERE contype NOT IN ('n', 't')
    UNION ALL SELECT concat(pg_get_triggerdef(pg_trigger.oid),
        CASE tgenabled WHEN 'D' THEN ' DISABLED' END)
    FROM pg_trigger JOIN this ON tgrelid = this.oid
    WHERE NOT tgisinternal AND tgname <> 'move_fence'
    UNION ALL SELECT pg_get_ruledef(pg_rewrite.oid) FROM pg_rewrite JOIN this ON ev_class = this.oid
    WHERE rulename <> '_RETURN'  -- a view's query: versions of Postgres print it differently
    UNION ALL SELECT 'ROW LEVEL SECURITY' FROM this WHERE relrowsecurity
    UNION ALL SELECT 'FORCE ROW LEVEL SECURITY' FROM this WHERE relforcerowsecurity
    UNION ALL SELECT concat('POLICY ', polname, CASE WHEN NOT polpermissive THEN ' RESTRICTIVE' END,
        ' FOR ', polcmd, ' TO ', polroles::regrole[], ' USING ' || pg_get_expr(polqual, polrelid),
        ' CHECK ' || pg_get_expr(polwithcheck, polrelid))
    FROM pg_policy JOIN this ON polrelid = this.oid
    UNION ALL SELECT concat('TYPE ', format_type(types.oid, NULL), ': ', array_to_string(
        ARRAY(SELECT enumlabel::text FROM pg_enum
            WHERE enumtypid = types.oid ORDER BY enumsortorder)
        || ARRAY(SELECT pg_get_constraintdef(pg_constraint.oid) AS rule FROM pg_constraint
            WHERE contypid = types.oid ORDER BY rule)
        || ARRAY(SELECT concat(attname, ' ', format_type(atttypid, atttypmod)) FROM pg_attribute
            WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum), ', '),
        ' DEFAULT ' || typdefault)
    FROM types JOIN pg_type USING (oid) WHERE typtype IN ('e', 'd', 'c')
    UNION ALL SELECT concat('FUNCTION ', oid::regprocedure, ' AS ', coalesce(
        pg_get_function_sqlbody(oid), prosrc))
    FROM (SELECT DISTINCT oid FROM functions) AS used JOIN pg_proc USING (oid)
    WHERE NOT EXISTS (SELECT FROM pg_depend WHERE objid = oid AND deptype = 'e')
"""

# The views that read these tables, also through another view. A view follows those that it reads.
VIEWS = """
    WITH RECURSIVE readers AS (
        SELECT unnest($1::text[]::regclass[])::oid AS oid, 0 AS distance
        UNION SELECT ev_class, distance + 1 FROM readers JOIN pg_depend ON refobjid = readers.oid
        JOIN pg_rewrite ON objid = pg_rewrite.oid
        WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
        AND ev_class <> readers.oid
    )
    SELECT oid::regclass::text AS name, relkind = 'm' AS is_materialized
    FROM readers JOIN pg_class USING (oid) WHERE relkind IN ('v', 'm')
    GROUP BY oid, relkind ORDER BY max(distance), oid
"""

# The tables that the text of a function names, and the triggers by which tables and views that stay
# call it. $2 has the views that move.
# Not in comments and strings, and not after FROM in `IS DISTINCT FROM` or EXTRACT (… FROM …). INTO
# alone leads to a variable of PL/pgSQL. Each table with each function would be a million matches.
MENTIONS = r"""
    WITH functions AS MATERIALIZED (
        SELECT oid, md5(body) AS body, proconfig, regexp_replace(regexp_replace(body, concat(
            '("([^"]|"")*")|--[^\n]*|/\*([^*]|\*+[^*/])*\*+/|\$\w*\$[^$]*\$\w*\$',
            '|''([^'']|'''')*''|\m[eE]''([^''\\]|''''|\\.)*'''), '\1 ', 'g'
        ), concat('\mis\s+(not\s+)?distinct\s+from\M',
            '|\m(extract|overlay|substring|trim)\s*\([^()]*\mfrom\M'), ' ', 'gi') AS sql
        FROM pg_proc, LATERAL (SELECT coalesce(pg_get_function_sqlbody(oid), prosrc)) AS _ (body)
        WHERE prokind IN ('f', 'p')
        AND prolang IN (SELECT oid FROM pg_language WHERE lanname IN ('sql', 'plpgsql'))
        AND pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        AND NOT EXISTS (SELECT FROM pg_depend
            WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
    ), names AS MATERIALIZED (
        SELECT DISTINCT functions.oid, parse_ident(found[1], false) AS name
        FROM functions, regexp_matches(sql, concat(
            '\m(?:(?:from|join)[\s(]+|(?:insert|merge)\s+into\s+|truncate\s+(?:table\s+)?',
            '|(?:update|using|table)\s+)(?:only[\s(]+)?',
            '((?:(?:"(?:[^"]|"")+"|[[:alpha:]_][\w$]*)\s*\.\s*)?',
            '(?:"(?:[^"]|"")+"|[[:alpha:]_][\w$]*))'), 'gi') AS found
    ), triggers AS (
        SELECT tgfoid, array_agg(format('The trigger %I of %s', tgname, tgrelid::regclass)) AS shown
        FROM pg_trigger WHERE tgrelid <> ALL(($1::text[] || $2::text[])::regclass[])
        AND tgparentid = 0  -- each partition has a copy
        GROUP BY tgfoid
    )
    SELECT functions.oid::regprocedure::text AS function, body, used.oid::regclass::text AS table,
        used.oid = ANY($1::text[]::regclass[]) AS moves, shown AS triggers
    FROM names JOIN functions USING (oid) LEFT JOIN triggers ON tgfoid = functions.oid
    JOIN pg_class AS used ON relname = name[cardinality(name)]
    JOIN pg_namespace AS place ON place.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't'
    AND nspname NOT IN ('pg_catalog', 'information_schema')
    AND CASE WHEN cardinality(name) > 1 THEN nspname = name[1]
        ELSE pg_table_is_visible(used.oid) OR EXISTS (
            SELECT FROM unnest(proconfig) AS setting WHERE setting LIKE 'search_path=%'
            AND nspname = ANY(regexp_split_to_array(substr(setting, 13), '[\s",]+'))) END
    ORDER BY 1, 3
"""
