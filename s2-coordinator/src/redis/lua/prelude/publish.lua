-- Publishing: everything is decided before anything is written.

-- What is said of an event: topic; head: 16 bytes of an id and, with an idempotency key, 32 of a fingerprint and the key; text.
-- Without a key the head is there for verbs that answer with the id, and may be empty for others.
local EVENT_PARTS = 3
local ID_BYTES = 16
local SAID_BYTES = 48

local function id_of(head)
  return string.sub(head, 1, ID_BYTES)
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

-- The runs of events of one topic in a batch: its name, the numbers of the first and the last event, what they weigh, and the
-- numbers of those with a key.
local function runs_of(list, from, count)
  local runs, nth, base = {}, 0, from
  while nth < count do
    local name, first, bytes, keyed = list[base], nth, 0, {}
    repeat
      if #list[base + 1] > ID_BYTES then
        keyed[#keyed + 1] = nth
      end
      nth, bytes, base = nth + 1, bytes + #list[base + 2] + EVENT_BYTES, base + EVENT_PARTS
    until nth == count or list[base] ~= name
    runs[#runs + 1] = { name = name, first = first, last = nth - 1, bytes = bytes, keyed = keyed }
  end
  return runs
end

-- An error where the topics of a batch that are not there yet are more than there may be.
local function check_room(runs)
  local seen, fresh = {}, 0
  for _, run in ipairs(runs) do
    if not seen[run.name] and not find_topic(run.name) then
      fresh = fresh + 1
    end
    seen[run.name] = true
  end
  if fresh > 0 and M.topics + fresh > C.topics then
    return { 'topics', M.topics + fresh }
  end
end

-- Looks up the keys of a run of events of a topic, and notes in the plan what is to become of each; `earlier` are the events of
-- this batch that use a key first. Answers how many bytes are not to be written; or nil and an error.
local function plan_keys(plan, list, from, topic, run, earlier)
  local keyed, bytes = run.keyed, 0
  for page = 1, #keyed, 1000 do
    local keys, used = {}, {}
    for place = page, at_most(page + 999, #keyed) do
      keys[place - page + 1] = string.sub(list[from + keyed[place] * EVENT_PARTS + 1], SAID_BYTES + 1)
    end
    if topic then
      used = call('HMGET', P .. 'k:' .. run.name, unpack(keys))
    end
    for place, key in ipairs(keys) do
      local nth, known_key, what = keyed[page + place - 1], used[place], nil
      local base = from + nth * EVENT_PARTS
      local said, first = string.sub(list[base + 1], ID_BYTES + 1, SAID_BYTES), earlier[key]
      local id, before, position, at
      if known_key then
        id, before, position, at = struct.unpack(KEY, known_key)
      end
      if known_key and now - at < C.window then
        if before ~= said then
          return nil, { 'conflict', run.name, key, id }
        end
        what = { position, id }
      elseif first then
        if string.sub(list[from + first * EVENT_PARTS + 1], ID_BYTES + 1, SAID_BYTES) ~= said then
          return nil, { 'contradiction', key }
        end
        what = first
      else
        earlier[key], plan.keys[nth], plan.replaced[nth] = nth, key, known_key and true
      end
      if what then
        plan.there[nth], bytes = what, bytes + #list[base + 2] + EVENT_BYTES
      end
    end
  end
  return bytes
end

-- What is to become of the events of a batch, by `runs` and number: `there` has {position, id} of the original for a duplicate,
-- or the number of the event of this batch that says the same; `keys` those that are used, and `replaced` which of them anew.
-- Or nil and an error.
local function plan_batch(list, from, count)
  local plan = { runs = runs_of(list, from, count), there = {}, keys = {}, replaced = {} }
  local wrong = check_room(plan.runs)
  if wrong then
    return nil, wrong
  end
  -- The bytes that each topic gets, by its name, and the names in order; and what uses its keys first.
  local adds, earlier = {}, {}
  for _, run in ipairs(plan.runs) do
    local name, bytes = run.name, run.bytes
    local topic = find_topic(name)
    if topic then
      expire_keys(topic)
    end
    if #run.keyed > 0 then
      earlier[name] = earlier[name] or {}
      local less
      less, wrong = plan_keys(plan, list, from, topic, run, earlier[name])
      if not less then
        return nil, wrong
      end
      bytes = bytes - less
    end
    if not adds[name] then
      adds[#adds + 1] = name
    end
    adds[name] = (adds[name] or 0) + bytes
  end
  for _, name in ipairs(adds) do
    wrong = adds[name] > 0 and check_backlog(find_topic(name), name, adds[name])
    if wrong then
      return nil, wrong
    end
  end
  return plan
end

-- Writes events that lie together: {'b', '', field, value, …} up to `size`, from a position on, after so many bytes of others.
local function write_entry(topic, position, count, before, fields, size)
  local id = string.format('%d-%d', position, now)
  if count > 1 or position % STRIDE == 0 or #fields[4] > HEAVY_BYTES then
    fields[2] = int(before)
  else
    fields, size = { fields[3], fields[4] }, 2
  end
  call('XADD', topic.stream, id, unpack(fields, 1, size))
  if topic.written then
    topic.written[#topic.written + 1] = { id, fields, position, count }
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

-- Publishes a run of a planned batch, and notes what became of each of its events.
local function publish_run(plan, list, from, run, answers)
  local topic, there, keys = make_topic(run.name), plan.there, plan.keys
  local position, total = topic.next, topic.total
  local used, ages, uses = {}, { now }, 0
  if not topic.begun then
    published[#published + 1], topic.begun, topic.written = topic, position, #topic.waiting > 0 and {}
  end
  -- What is to lie together, its bytes, where it begins, and the bytes before it.
  local fields, size, bytes, first, before = { 'b', '' }, 2, 0, position, total
  if topic.first == position then
    topic.oldest = now
  end
  for nth = run.first, run.last do
    local base, what = from + nth * EVENT_PARTS, there[nth]
    if not what then
      local text, key = list[base + 2], keys[nth]
      if bytes + #text > HEAVY_BYTES or position - first >= ENTRY_EVENTS then
        if position > first then
          write_entry(topic, first, position - first, before, fields, size)
        end
        fields, size, bytes, first, before = { 'b', '' }, 2, 0, position, total
      end
      fields[size + 1], fields[size + 2], size, bytes = 'e', text, size + 2, bytes + #text
      if key then
        uses = uses + 1
        -- As KEY says: the head begins with the id and the fingerprint.
        used[uses * 2 - 1], used[uses * 2] = key, struct.pack('>c48I7I7', list[base + 1], position, now)
        ages[uses + 1] = key
        -- Used anew after its window, the older use no longer counts.
        topic.keys = topic.keys + (plan.replaced[nth] and 0 or #key + KEY_BYTES)
      end
      answers[nth + 1] = position
      position, total = position + 1, total + #text + EVENT_BYTES
    elseif type(what) == 'table' then
      answers[nth + 1] = what
    else
      local same = answers[what + 1]
      answers[nth + 1] = type(same) == 'table' and same or { same, id_of(list[from + what * EVENT_PARTS + 1]) }
    end
  end
  if position > first then
    write_entry(topic, first, position - first, before, fields, size)
  end
  topic.next, topic.total = position, total
  if topic.first == position then
    topic.oldest = NEVER
  end
  if uses > 0 then
    for place = 1, uses * 2, 1000 do
      call('HSET', P .. 'k:' .. run.name, unpack(used, place, at_most(place + 999, uses * 2)))
    end
    call('RPUSH', P .. 'ka:' .. run.name, cmsgpack.pack(ages))
    topic.oldest_key = at_most(topic.oldest_key, now)
    arm_topic(topic, now + C.window + math.floor(C.window / 8))
  end
  if C.topic_age then
    arm_topic(topic, now + C.topic_age)
  end
end

-- Publishes a batch, all of it or nothing: the parts of `count` events, in `list` from place `from` on. Answers with a position
-- for each event that was written, {position, id} for each that was there already; or nil and an error. After that it says the
-- first position, where all were written and lie in a row.
local function publish(list, from, count)
  local plan, wrong = plan_batch(list, from, count)
  if not plan then
    return nil, wrong
  end
  local answers = {}
  for _, run in ipairs(plan.runs) do
    publish_run(plan, list, from, run, answers)
  end
  return answers, nil, #plan.runs == 1 and not next(plan.there) and answers[1]
end

-- The same for verbs that answer with ids: {id, position, 1 if it was there already} for each event.
local function publish_outputs(list, from, count)
  local answers, wrong = publish(list, from, count)
  if not answers then
    return nil, wrong
  end
  for nth, answer in ipairs(answers) do
    local there = type(answer) == 'table'
    local id = there and answer[2] or id_of(list[from + (nth - 1) * EVENT_PARTS + 1])
    answers[nth] = { id, there and answer[1] or answer, there and 1 or 0 }
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
