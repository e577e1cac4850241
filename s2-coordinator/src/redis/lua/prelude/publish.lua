-- Publishing: everything is decided before anything is written.

-- What is said of an event: topic; head: 16 bytes of an id and, with an idempotency key, 32 of a fingerprint and the key; text.
local EVENT_PARTS = 3
local ID_BYTES = 16

local function id_of(head)
  return string.sub(head, 1, ID_BYTES)
end

local function said_of(head)
  return string.sub(head, ID_BYTES + 1, ID_BYTES + 32)
end

local function key_of(head)
  return string.sub(head, ID_BYTES + 33)
end

-- Everything up to here is settled by every group that still counts. One that has lost its state stands at its recorded floor.
local function safe_floor(topic)
  local safe = topic.next - 1
  for _, listed in ipairs(groups_of(topic)) do
    local group = find_group(listed[1])
    if not group or not group.expired then
      safe = at_most(safe, group and group.floor or listed[3])
    end
  end
  return safe
end

-- Drops settled history that exceeds the retention, an eighth of it at a time, and says so in the journal.
local function trim(topic)
  local bytes = topic.total - topic.trimmed
  local empty = topic.first >= topic.next
  local too_much = bytes > C.topic_bytes
  local too_old = C.topic_age and not empty and topic.oldest + C.topic_age <= now
  if C.topic_age and not empty and not too_old then
    arm_topic(topic, topic.oldest + C.topic_age)
  end
  if not too_much and not too_old then
    return
  end
  local safe = safe_floor(topic)
  local eighth = math.floor(C.topic_bytes / 8)
  too_much = too_much and bytes - bytes_after(topic, safe) >= eighth
  local room = too_much and C.topic_bytes - eighth or NEVER
  local youth = too_old and C.topic_age - math.floor(C.topic_age / 8) or NEVER
  -- Bytes and ages are in order: the first event that stays is found by halving.
  local low, high = topic.first, at_least(safe + 1, topic.first)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = youth < NEVER and entry_at(topic, middle)
    local age = youth < NEVER and now - (entry and recorded(entry) or 0) or 0
    if topic.total - bytes_until(topic, middle) > room or age >= youth then
      low = middle + 1
    else
      high = middle
    end
  end
  if low == topic.first then
    return
  end
  local dropped, entry = low - topic.first, low < topic.next and entry_at(topic, low)
  topic.trimmed = bytes_until(topic, low)
  topic.first, topic.oldest = low, entry and recorded(entry) or NEVER
  if C.topic_age and topic.oldest < NEVER then
    arm_topic(topic, topic.oldest + C.topic_age)
  end
  call('XTRIM', topic.stream, 'MINID', '=', int(entry and id_position(entry) or low))
  for _, listed in ipairs(groups_of(topic)) do
    local group = find_group(listed[1])
    if group then
      forget_before(topic, group)
    end
  end
  journal {
    component = 'bus', operation = 'trim', subject = topic.name, params = { 'through', low - 1, 'events', dropped },
  }
end

-- An error when `more` bytes would exceed what a topic may hold that nobody may drop.
local function check_backlog(topic, name, more)
  if not topic then
    return more > C.backlog_bytes and { 'full', name, 0 } or nil
  end
  local others = topic.dead + topic.keys
  if topic.total - topic.trimmed + others + more <= C.backlog_bytes then
    return nil
  end
  expire_keys(topic)
  local safe = safe_floor(topic)
  local held = bytes_after(topic, safe) + topic.dead + topic.keys
  return held + more > C.backlog_bytes and { 'full', name, held } or nil
end

-- An error where the topics of a batch that are not there yet are more than there may be.
local function check_room(list, from, count)
  local seen, fresh, last = nil, 0, nil
  for place = from, from + (count - 1) * EVENT_PARTS, EVENT_PARTS do
    local name = list[place]
    if name ~= last then
      last = name
      if not find_topic(name) then
        seen = seen or {}
        fresh = fresh + (seen[name] and 0 or 1)
        seen[name] = true
      end
    end
  end
  if fresh > 0 and M.topics + fresh > C.topics then
    return { 'topics', M.topics + fresh }
  end
end

-- What is to become of each event of a batch: nil to write it, {position, id} of the original for a duplicate, or the
-- number of the event of this batch that says the same; and which use a key anew. Or nil and an error.
local function plan(list, from, count)
  local wrong = check_room(list, from, count)
  if wrong then
    return nil, wrong
  end
  -- The bytes that each topic gets, by its name, and the names in order, where there are several.
  local plans, adds, replaced, seen = {}, nil, nil, nil
  local name, topic, bytes
  for nth = 0, count - 1 do
    local base = from + nth * EVENT_PARTS
    if list[base] ~= name then
      if name then
        adds = adds or { name }
        adds[name] = bytes
      end
      name = list[base]
      topic, bytes = find_topic(name), adds and adds[name] or 0
      if topic then
        expire_keys(topic)
      end
      if adds and not adds[name] then
        adds[#adds + 1] = name
      end
    end
    local head, what = list[base + 1], nil
    if #head > ID_BYTES then
      replaced, seen = replaced or {}, seen or {}
      local said, key = said_of(head), key_of(head)
      local used = topic and call('HGET', P .. 'k:' .. name, key)
      local before, id, position, at
      if used then
        before, id, position, at = struct.unpack(KEY, used)
      end
      local first = seen[name .. '\0' .. key]
      if used and now - at < C.window then
        if before ~= said then
          return nil, { 'conflict', name, key, id }
        end
        what = { position, id }
      elseif first then
        if said_of(list[from + first * EVENT_PARTS + 1]) ~= said then
          return nil, { 'contradiction', key }
        end
        what = first
      else
        seen[name .. '\0' .. key] = nth
        replaced[nth] = used and true
      end
    end
    if what == nil then
      bytes = bytes + #list[base + 2] + EVENT_BYTES
    end
    plans[nth] = what
  end
  if not adds then
    wrong = bytes and bytes > 0 and check_backlog(topic, name, bytes)
    return not wrong and plans, wrong or replaced
  end
  adds[name] = bytes
  for _, each in ipairs(adds) do
    wrong = adds[each] > 0 and check_backlog(find_topic(each), each, adds[each])
    if wrong then
      return nil, wrong
    end
  end
  return plans, replaced
end

-- Writes events that lie together: {field, value, …} from a position on, after so many bytes of others.
local function write_entry(topic, position, count, before, fields)
  if count > 1 or position % STRIDE == 0 or #fields[2] > HEAVY_BYTES then
    fields = { 'b', int(before), unpack(fields) }
  end
  local entry = { string.format('%d-%d', position, now), fields, position, count }
  call('XADD', topic.stream, entry[1], unpack(fields))
  if topic.written then
    topic.written[#topic.written + 1] = entry
  end
end

-- At the end of a step that has published on a topic: whoever waits for it gets what there is.
local function announce(topic)
  local from = topic.begun
  if topic.next > from then
    for place = #topic.waiting, 1, -1 do
      local waiting = topic.waiting[place]
      if waiting then
        serve_waiting(topic, waiting, from)
      end
    end
    if topic.tails == 1 then
      topic.tails = 0
      wake_tails(topic.name)
    end
  end
  topic.begun, topic.written = nil, nil
  trim(topic)
end

-- Publishes a batch, all of it or nothing: the parts of `count` events, in `list` from place `from` on. Answers with a position
-- for each event that was written, {position, id} for each that was there already; or nil and an error.
local function publish(list, from, count)
  local plans, replaced = plan(list, from, count)
  if not plans then
    return nil, replaced
  end
  local answers, nth = {}, 0
  while nth < count do
    local topic = make_topic(list[from + nth * EVENT_PARTS])
    local name, position, total = topic.name, topic.next, topic.total
    local used, ages
    if not topic.begun then
      published[#published + 1], topic.begun, topic.written = topic, position, #topic.waiting > 0 and {}
    end
    -- What is to lie together, its bytes, where it begins, and the bytes before it.
    local fields, bytes, first, before = {}, 0, position, total
    if topic.first == position then
      topic.oldest = now
    end
    while nth < count and list[from + nth * EVENT_PARTS] == name do
      local base, what = from + nth * EVENT_PARTS, plans[nth]
      nth = nth + 1
      if what == nil then
        local head, text = list[base + 1], list[base + 2]
        if bytes + #text > HEAVY_BYTES or position - first >= ENTRY_EVENTS then
          if position > first then
            write_entry(topic, first, position - first, before, fields)
          end
          fields, bytes, first, before = {}, 0, position, total
        end
        fields[#fields + 1], fields[#fields + 2], bytes = 'e', text, bytes + #text
        if #head > ID_BYTES then
          local key = key_of(head)
          used, ages = used or {}, ages or { now }
          used[#used + 1], used[#used + 2] = key, struct.pack(KEY, said_of(head), id_of(head), position, now)
          ages[#ages + 1] = key
          -- Used anew after its window, the older use no longer counts.
          topic.keys = topic.keys + (replaced[nth - 1] and 0 or #key + KEY_BYTES)
        end
        answers[nth] = position
        position, total = position + 1, total + #text + EVENT_BYTES
      elseif type(what) == 'table' then
        answers[nth] = what
      else
        local same = answers[what + 1]
        answers[nth] = type(same) == 'table' and same or { same, id_of(list[from + what * EVENT_PARTS + 1]) }
      end
    end
    if position > first then
      write_entry(topic, first, position - first, before, fields)
    end
    topic.next, topic.total = position, total
    if topic.first == position then
      topic.oldest = NEVER
    end
    if used then
      for from_ = 1, #used, 1000 do
        call('HSET', P .. 'k:' .. name, unpack(used, from_, at_most(from_ + 999, #used)))
      end
      call('RPUSH', P .. 'ka:' .. name, cmsgpack.pack(ages))
      topic.oldest_key = at_most(topic.oldest_key, now)
      arm_topic(topic, now + C.window + math.floor(C.window / 8))
    end
    if C.topic_age then
      arm_topic(topic, now + C.topic_age)
    end
  end
  return answers
end

-- Raises an escalation, or counts it where one with its key is pending: key, reason, payload, severity, trace. Answers
-- with its number and whether it was pending; or nil and an error.
local function escalate(new)
  local pending = call('HGET', P .. 'escalation:keys', new.key)
  if pending then
    local escalation = cmsgpack.unpack(call('HGET', P .. 'escalation', pending))
    escalation[7] = escalation[7] + 1
    call('HSET', P .. 'escalation', pending, cmsgpack.pack(escalation))
    return { tonumber(pending), 1 }
  end
  local count = call('ZCARD', P .. 'inbox')
  if count >= C.escalations then
    return nil, { 'escalations', count + 1 }
  end
  M.escalation, M.changed = M.escalation + 1, true
  local id = M.escalation
  journal {
    component = 'inbox', operation = 'escalate', subject = new.key, severity = new.severity, trace = new.trace,
    params = { 'id', id, 'reason', new.reason },
  }
  call('HSET', P .. 'escalation:keys', new.key, int(id))
  call('ZADD', P .. 'inbox', id, int(id))
  call('HSET', P .. 'escalation', int(id),
    cmsgpack.pack({ new.key, new.reason, new.payload, new.severity, new.trace or '', now, 1 }))
  return { id, 0 }
end
