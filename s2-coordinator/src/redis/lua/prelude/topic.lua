-- Topics: the stream of events, idempotency keys, retention.
--
-- `t:<topic>` holds the state below, `e:<topic>` the stream of events (id `<position>-0`; fields `e` attributes, `d` data,
-- `t` "<when recorded> <bytes before it>"), `k:<topic>` what was published under which key, `ka:<topic>` keys by age,
-- `tg:<topic>` the groups by name, each with its incarnation and its floor.

local EVENT_BYTES = 96
local KEY_BYTES = 160
local KEY = '>c32c16I7I7'

-- Topics that this step has loaded; false where there is none.
local topics = {}

local TOPIC = { 'first', 'next', 'total', 'trimmed', 'dead', 'keys', 'due', 'oldest', 'oldest_key', 'tails', 'waiting' }

local function pack_fields(object, names)
  local values = {}
  for nth, name in ipairs(names) do
    values[nth] = object[name]
  end
  return cmsgpack.pack(values)
end

local function unpack_fields(packed, names)
  local object = {}
  for nth, value in ipairs(cmsgpack.unpack(packed)) do
    object[names[nth]] = value
  end
  return object
end

local function find_topic(name)
  local topic = topics[name]
  if topic == nil then
    local packed = call('GET', P .. 't:' .. name)
    topic = packed and unpack_fields(packed, TOPIC) or false
    if topic then
      topic.name = name
    end
    topics[name] = topic
  end
  return topic
end

local function id_position(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

-- When an event was recorded, and the bytes of all events before it.
local function recorded(entry)
  local at, before = string.match(entry[2][6], '^(%d+) (%d+)')
  return tonumber(at), tonumber(before)
end

local function weigh(entry)
  return #entry[2][2] + #entry[2][4] + EVENT_BYTES
end

-- The topic, made where there is none. One that has lost its state goes on after everything that is known of it.
local function make_topic(name)
  local topic = find_topic(name)
  if topic then
    return topic
  end
  local ended = tonumber(call('HGET', P .. 'ended', name) or M.highest)
  call('HDEL', P .. 'ended', name)
  topic = {
    name = name, first = ended + 1, next = ended + 1, total = 0, trimmed = 0, dead = 0, keys = 0, due = NEVER,
    oldest = NEVER, oldest_key = NEVER, tails = call('EXISTS', P .. 'tails:' .. name) == 1, waiting = {},
  }
  for _, group in ipairs(call('HVALS', P .. 'tg:' .. name)) do
    local incarnation, floor = string.match(group, '^(%d+) (%d+)')
    topic.next = at_least(topic.next, tonumber(floor) + 1)
    if call('EXISTS', P .. 'w:' .. incarnation) == 1 then
      table.insert(topic.waiting, tonumber(incarnation))
    end
    topic.due = 0
  end
  topic.first = topic.next
  local first = call('XRANGE', P .. 'e:' .. name, '-', '+', 'COUNT', 1)[1]
  if first then
    local last = call('XREVRANGE', P .. 'e:' .. name, '+', '-', 'COUNT', 1)[1]
    topic.first, topic.next = id_position(first), at_least(topic.next, id_position(last) + 1)
    topic.oldest, topic.trimmed = recorded(first)
    topic.total = select(2, recorded(last)) + weigh(last)
    topic.due = 0
  end
  if topic.due == 0 then
    arm('t:' .. name, 0)
  end
  M.topics = M.topics + 1
  topics[name] = topic
  return topic
end

-- The groups of a topic by incarnation: {incarnation, name, floor}.
local function groups_of(topic)
  local listed, groups = call('HGETALL', P .. 'tg:' .. topic.name), {}
  for nth = 1, #listed, 2 do
    local incarnation, floor = string.match(listed[nth + 1], '^(%d+) (%d+)')
    groups[#groups + 1] = { tonumber(incarnation), listed[nth], tonumber(floor) }
  end
  table.sort(groups, function(a, b) return a[1] < b[1] end)
  return groups
end

local function arm_topic(topic, at)
  if at < topic.due then
    topic.due = at
    arm('t:' .. topic.name, at)
  end
end

-- The entry at a position, or nil.
local function entry_at(topic, position)
  return call('XRANGE', P .. 'e:' .. topic.name, int(position), int(position))[1]
end

-- Entries from a position on, which is retained: at most `limit` and about 4 MiB, but one in any case. `average` is what
-- one weighs.
local function entries_from(key, from, limit, average)
  local found, bytes = {}, 0
  while #found < limit and bytes < 4194304 do
    local count = math.floor((4194304 - bytes) / at_least(average, 1))
    local page = call('XRANGE', key, int(from), '+', 'COUNT', at_least(at_most(limit - #found, count), 1))
    for _, entry in ipairs(page) do
      found[#found + 1] = entry
      bytes = bytes + #entry[2][2] + #entry[2][4]
    end
    if #page == 0 then
      break
    end
    from = id_position(page[#page]) + 1
  end
  return found
end

local function average_of(topic)
  return (topic.total - topic.trimmed) / at_least(topic.next - topic.first, 1)
end

-- Forgets keys that are older than the window, oldest first.
local function expire_keys(topic)
  while topic.oldest_key + C.window <= now and budget > 0 do
    local packed = call('LPOP', P .. 'ka:' .. topic.name)
    local batch = packed and cmsgpack.unpack(packed) or {}
    for nth = 2, #batch do
      local used = call('HGET', P .. 'k:' .. topic.name, batch[nth])
      if used and select(4, struct.unpack(KEY, used)) == batch[1] then
        call('HDEL', P .. 'k:' .. topic.name, batch[nth])
        topic.keys = topic.keys - #batch[nth] - KEY_BYTES
      end
      budget = budget - 1
    end
    local oldest = call('LINDEX', P .. 'ka:' .. topic.name, 0)
    topic.oldest_key = oldest and cmsgpack.unpack(oldest)[1] or NEVER
  end
end

-- Bytes of the events that follow a position.
local function bytes_after(topic, position)
  if position < topic.first then
    return topic.total - topic.trimmed
  end
  local entry = position + 1 < topic.next and entry_at(topic, position + 1)
  return entry and topic.total - select(2, recorded(entry)) or 0
end
