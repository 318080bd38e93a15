{#- Addresses of the raw objects in the store; with a relation, of those it has not loaded yet.
    Compared by name, not by time: an object that lands late, in an hour long past, is new. One that
    compaction made of objects that are loaded is not: its name is the range of theirs. -#}
{% macro raw_objects(loaded=none) %}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {%- set pattern = env_var("SHALLOP_STORE_URI") ~ "/raw/events/**/*.parquet" -%}
    {%- set found -%}
        select file from glob({{ sql_text(pattern) }})
        {% if loaded is not none -%}
            where
                file not in (select distinct raw_object from {{ loaded }})
                and file not in ({{ compacted_from(pattern, loaded) }})
        {%- endif %}
        order by file
    {%- endset -%}
    {{ return(run_query(found).columns[0].values() | list) }}
{% endmacro %}


{#- Objects whose whole range the loaded objects of the same collector cover without a gap. -#}
{% macro compacted_from(pattern, loaded) -%}
    {%- set name = "'([^/]+)-(\\d{12,})-(\\d{12,})\\.parquet$', ['collector', 'first', 'last']" -%}
    select merged.file
    from (
        select
            file,
            n.collector as collector,
            try_cast(n.first as bigint) as first_seq,
            try_cast(n.last as bigint) as last_seq
        from (select file, regexp_extract(file, {{ name }}) as n from glob({{ sql_text(pattern) }}))
    ) as merged
    inner join (
        select
            n.collector as collector,
            try_cast(n.first as bigint) as first_seq,
            try_cast(n.last as bigint) as last_seq,
            max(try_cast(n.last as bigint)) over (
                partition by n.collector order by try_cast(n.first as bigint)
                rows between unbounded preceding and 1 preceding
            ) as reached
        from (
            select distinct regexp_extract(raw_object, {{ name }}) as n from {{ loaded }}
        )
    ) as part
        on
            merged.collector = part.collector
            and part.first_seq between merged.first_seq and merged.last_seq
            and part.last_seq <= merged.last_seq
    group by merged.file, merged.first_seq, merged.last_seq
    having
        min(part.first_seq) = merged.first_seq
        and max(part.last_seq) = merged.last_seq
        and count(*) filter (
            where part.first_seq > merged.first_seq and part.first_seq > part.reached + 1
        ) = 0
{%- endmacro %}


{#- The rows of raw objects; with none, no rows of the same columns. -#}
{% macro read_raw(objects) %}
    {%- if objects -%}
        read_parquet(
            [{% for object in objects %}{{ sql_text(object) }}{{ ", " if not loop.last }}{% endfor %}],
            hive_partitioning = true,
            hive_types = {'date': date, 'hour': integer},
            union_by_name = true,
            filename = 'raw_object'
        )
    {%- else -%}
        (
            select
                {% for name, type in raw_columns().items() %}
                    null::{{ type }} as {{ adapter.quote(name) }},
                {% endfor %}
                null::varchar as raw_object
            where false
        )
    {%- endif -%}
{% endmacro %}


{#- Columns of a raw event; tested equal to the event contract. -#}
{% macro raw_columns() %}
    {{ return({
        "event_id": "varchar",
        "event_name": "varchar",
        "occurred_at": "timestamptz",
        "received_at": "timestamptz",
        "visitor_id": "varchar",
        "user_id": "varchar",
        "session_id": "varchar",
        "items": item_list_type(),
        "item_list_id": "varchar",
        "recommendation_id": "varchar",
        "value": "double",
        "currency": "varchar",
        "page_url": "varchar",
        "referrer": "varchar",
        "user_agent": "varchar",
        "ip_prefix": "varchar",
        "consent": "varchar",
        "source": "varchar",
        "schema_version": "smallint",
        "extra": "varchar",
    }) }}
{% endmacro %}


{% macro item_list_type() -%}
    struct(
        item_id varchar, item_name varchar, item_category varchar,
        price double, quantity integer, "index" integer
    )[]
{%- endmacro %}


{% macro sql_text(value) -%}
    '{{ value | replace("'", "''") }}'
{%- endmacro %}
